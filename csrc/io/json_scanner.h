#pragma once
// The tokens of JSON text (RFC 8259), for readers that know what they expect.
#include <cstdint>
#include <string>
#include <string_view>

#include "core/check.h"

namespace vpd::io {

class JsonScanner {
 public:
  // path, format and noun are for errors: "<path>: bad <format> <noun>: expected .., got ..".
  JsonScanner(std::string_view text, std::string path, std::string format, std::string noun)
      : text_(text), path_(std::move(path)), format_(std::move(format)), noun_(std::move(noun)) {}

  // "{"key": ..}": member(key) reads each value.
  template <typename Member>
  void members(Member&& member) {
    expect('{');
    if (accept('}')) return;
    do {
      std::string name = string();
      expect(':');
      member(std::move(name));
    } while (accept(','));
    expect('}');
  }

  // "[.., ..]": item() reads each value.
  template <typename Item>
  void items(Item&& item) {
    expect('[');
    if (accept(']')) return;
    do {
      item();
    } while (accept(','));
    expect(']');
  }

  std::string string();  // valid UTF-8
  uint64_t integer();    // in [0, 2^63)
  // Any number, NaN and Infinity as Python writes them included.
  double number();

  // Spaces first, then c or word; accept: whether it was there.
  bool accept(char c);
  bool accept(std::string_view word);
  void expect(char c) { check(accept(c), std::string("'") + c + "'", here()); }
  // The character behind spaces, not taken; 0 at the end.
  char peek();
  // Nothing but spaces is left.
  void finish();

  // Throws std::invalid_argument.
  void check(bool ok, const std::string& expected, const std::string& got) const {
    VPD_CHECK(ok, path_, ": bad ", format_, " ", noun_, ": expected ", expected, ", got ", got);
  }
  // What stands at the current place, for errors.
  std::string here() const;

 private:
  uint32_t escape();
  uint32_t hex4();
  void skip_space();
  char next();

  std::string_view text_;
  std::string path_;
  std::string format_;
  std::string noun_;
  size_t at_ = 0;
};

}  // namespace vpd::io
