#include "io/json_scanner.h"

#include <charconv>
#include <limits>

#include "io/mapped_file.h"
#include "text/utf8.h"

namespace vpd::io {

std::string JsonScanner::string() {
  expect('"');
  std::string out;
  while (true) {
    const auto c = static_cast<uint8_t>(next());
    if (c == '"') break;
    check(c >= 0x20, "an escaped control character", "byte " + std::to_string(c));
    if (c == '\\') {
      text::append_utf8(out, escape());
    } else {
      out.push_back(static_cast<char>(c));
    }
  }
  check(is_utf8(out), "UTF-8 text", "a string with invalid bytes");
  return out;
}

uint64_t JsonScanner::integer() {
  skip_space();
  uint64_t value = 0;
  const char* begin = text_.data() + at_;
  const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
  check(error == std::errc() && value <= std::numeric_limits<int64_t>::max(),
        "an integer in [0, 2^63)", here());
  check(end - begin == 1 || *begin != '0', "an integer without leading zeros", here());
  at_ += static_cast<size_t>(end - begin);
  return value;
}

double JsonScanner::number() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (accept("NaN")) return std::numeric_limits<double>::quiet_NaN();
  if (accept("Infinity")) return kInfinity;
  if (accept("-Infinity")) return -kInfinity;
  double value = 0;
  const char* begin = text_.data() + at_;
  const char* limit = text_.data() + text_.size();
  const char* digits = begin + (peek() == '-' ? 1 : 0);
  const bool starts = digits < limit && *digits >= '0' && *digits <= '9';
  const auto [end, error] = std::from_chars(begin, limit, value);
  check(starts && error == std::errc(), "a number", here());
  check(*digits != '0' || end - digits == 1 || digits[1] < '0' || digits[1] > '9',
        "a number without leading zeros", here());
  check(end[-1] != '.', "digits behind the point", here());
  at_ += static_cast<size_t>(end - begin);
  return value;
}

bool JsonScanner::accept(char c) {
  skip_space();
  if (at_ == text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

bool JsonScanner::accept(std::string_view word) {
  skip_space();
  if (!text_.substr(at_).starts_with(word)) return false;
  at_ += word.size();
  return true;
}

char JsonScanner::peek() {
  skip_space();
  return at_ < text_.size() ? text_[at_] : '\0';
}

void JsonScanner::finish() {
  skip_space();
  check(at_ == text_.size(), "nothing but spaces behind the end", here());
}

std::string JsonScanner::here() const {
  if (at_ >= text_.size()) return "the end of the " + noun_;
  const auto c = static_cast<uint8_t>(text_[at_]);
  const std::string shown =
      c > 0x20 && c < 0x7F ? std::string("'") + text_[at_] + "'" : "byte " + std::to_string(c);
  return shown + " at " + noun_ + " offset " + std::to_string(at_);
}

uint32_t JsonScanner::escape() {
  const char c = next();
  constexpr std::string_view kCodes = "\"\\/bfnrt";
  constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
  if (const size_t i = kCodes.find(c); i != kCodes.npos) return static_cast<uint8_t>(kValues[i]);
  check(c == 'u', "a JSON escape", "another character behind a backslash");
  uint32_t code = hex4();
  if (code >= 0xD800 && code < 0xDC00) {  // the first half of a surrogate pair
    check(next() == '\\' && next() == 'u', "a surrogate pair", "half of one");
    const uint32_t low = hex4();
    check(low >= 0xDC00 && low < 0xE000, "a surrogate pair", "half of one");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  return code;  // a lone second half fails the UTF-8 check
}

uint32_t JsonScanner::hex4() {
  uint32_t code = 0;
  check(text_.size() - at_ >= 4, "four hexadecimal digits", "the end of the " + noun_);
  const char* begin = text_.data() + at_;
  const auto [end, error] = std::from_chars(begin, begin + 4, code, 16);
  check(error == std::errc() && end == begin + 4, "four hexadecimal digits", here());
  at_ += 4;
  return code;
}

void JsonScanner::skip_space() {
  while (at_ < text_.size() &&
         std::string_view(" \n\r\t").find(text_[at_]) != std::string_view::npos) {
    ++at_;
  }
}

char JsonScanner::next() {
  check(at_ < text_.size(), "a closing quote", here());
  return text_[at_++];
}

}  // namespace vpd::io
