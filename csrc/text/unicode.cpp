#include "text/unicode.h"

#include <algorithm>
#include <iterator>

#include "text/unicode_tables.h"

namespace vpd::text {
namespace {

// The range that may hold `code`: the last that starts no later; ranges ascend.
template <typename Range, size_t kCount>
const Range* find(const Range (&ranges)[kCount], char32_t code) {
  const auto behind =
      std::upper_bound(std::begin(ranges), std::end(ranges), code,
                       [](char32_t value, const Range& range) { return value < range.first; });
  if (behind == std::begin(ranges)) return nullptr;
  const Range* range = behind - 1;
  return code <= range->last ? range : nullptr;
}

char32_t lower_of(char32_t code) {
  const LowerRange* range = find(kLower, code);
  if (range == nullptr || (code - range->first) % range->step != 0) return code;
  return static_cast<char32_t>(static_cast<int32_t>(code) + range->shift);
}

}  // namespace

bool is_letter(char32_t code) { return find(kLetters, code) != nullptr; }

bool is_number(char32_t code) { return find(kNumbers, code) != nullptr; }

bool is_space(char32_t code) { return find(kSpaces, code) != nullptr; }

std::u32string lower(std::u32string_view text) {
  constexpr char32_t kCapitalSigma = 0x3A3, kSigma = 0x3C3, kFinalSigma = 0x3C2;
  constexpr char32_t kDottedI = 0x130, kDotAbove = 0x307;
  std::u32string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const char32_t code = text[i];
    if (code == kDottedI) {  // the one character whose lower case is two
      out += {U'i', kDotAbove};
    } else if (code == kCapitalSigma) {
      const bool after = i > 0 && is_letter(text[i - 1]);
      const bool before = i + 1 < text.size() && is_letter(text[i + 1]);
      out += after && !before ? kFinalSigma : kSigma;
    } else {
      out += lower_of(code);
    }
  }
  return out;
}

}  // namespace vpd::text
