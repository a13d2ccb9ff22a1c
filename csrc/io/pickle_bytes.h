#pragma once
// The bytes of a pickle, taken from front to back.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace vpd::io {

// Whatever lies behind the end is an std::invalid_argument.
class PickleBytes {
 public:
  // where: what its errors begin with.
  PickleBytes(std::string_view bytes, std::string where);

  std::string_view take(uint64_t count);
  uint64_t number(size_t width);            // little-endian, of at most 8 bytes
  std::string_view line(const char* what);  // without its end; what: for errors
  size_t at() const { return at_; }
  size_t size() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  std::string where_;
  size_t at_ = 0;
};

}  // namespace vpd::io
