#include "io/pickle_bytes.h"

#include <cstring>
#include <utility>

#include "core/check.h"

namespace vpd::io {

PickleBytes::PickleBytes(std::string_view bytes, std::string where)
    : bytes_(bytes), where_(std::move(where)) {}

std::string_view PickleBytes::take(uint64_t count) {
  VPD_CHECK(count <= bytes_.size() - at_, where_, "the pickle needs ", count, " bytes at offset ",
            at_, ", it has ", bytes_.size(), " in all; it is damaged");
  const std::string_view taken = bytes_.substr(at_, static_cast<size_t>(count));
  at_ += taken.size();
  return taken;
}

uint64_t PickleBytes::number(size_t width) {
  uint64_t value = 0;
  std::memcpy(&value, take(width).data(), width);
  return value;
}

std::string_view PickleBytes::line(const char* what) {
  const size_t end = bytes_.find('\n', at_);
  VPD_CHECK(end != std::string_view::npos, where_, "the pickle ends inside a ", what);
  const std::string_view taken = take(end - at_);
  ++at_;
  return taken;
}

}  // namespace vpd::io
