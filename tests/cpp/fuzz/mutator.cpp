#include "mutator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace vpd::fuzz {
namespace {

constexpr size_t kMaxBytes = 1 << 16;
// Values that lengths, offsets and counts do not expect.
constexpr std::array<uint64_t, 14> kNumbers = {
    0,          1,          2,          0x7F,       0x80,       0xFF,      0xFFFF,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1ull << 40, 1ull << 62, ~0ull - 7, ~0ull};

// The length that opens a safetensors file counts its header: it follows a header that grew or
// shrank, so that damage reaches what lies behind the first check.
void mend_length(const std::string& before, std::string& after) {
  uint64_t length = 0;
  if (before.size() < 8 || after.size() < 8) return;
  std::memcpy(&length, before.data(), 8);
  if (length > before.size() - 8) return;
  length += after.size() - before.size();
  std::memcpy(after.data(), &length, 8);
}

}  // namespace

Mutator::Mutator(std::vector<std::string> corpus, std::vector<std::string> words, uint64_t seed)
    : corpus_(std::move(corpus)), words_(std::move(words)), random_(seed) {}

std::string Mutator::next() {
  const std::string& original = corpus_[below(corpus_.size())];
  std::string data = original;
  for (size_t changes = 1ull << below(4); changes > 0; --changes) change(data);
  if (data.size() > kMaxBytes) data.resize(kMaxBytes);
  if (below(2) == 0) mend_length(original, data);
  return data;
}

std::string Mutator::number() {
  uint64_t value = kNumbers[below(kNumbers.size())] + below(3) - 1;
  if (below(4) == 0) return std::to_string(value);  // as text has it
  std::string bytes(reinterpret_cast<const char*>(&value), 8);
  bytes.resize(1ull << below(4));
  if (below(4) == 0) std::reverse(bytes.begin(), bytes.end());
  return bytes;
}

void Mutator::change(std::string& data) {
  const size_t at = below(data.size() + 1);
  const size_t span = std::min(size_t{1} << below(6), data.size() - at);
  const auto insert_or_replace = [&](const std::string& piece) {
    data.replace(at, below(2) == 0 ? 0 : std::min(piece.size(), data.size() - at), piece);
  };
  switch (below(9)) {
    case 0:
      if (at < data.size()) data[at] = static_cast<char>(data[at] ^ (1 << below(8)));
      break;
    case 1:
      if (at < data.size()) data[at] = static_cast<char>(random_());
      break;
    case 2:
      data.erase(at, span);
      break;
    case 3:
      if (below(4) == 0) data.resize(at);
      break;
    case 4:
      data.insert(below(data.size() + 1), data.substr(at, span));
      break;
    case 5:
      insert_or_replace(number());
      break;
    case 6: {  // a piece of another file
      const std::string& other = corpus_[below(corpus_.size())];
      const size_t from = below(other.size());
      insert_or_replace(other.substr(from, 1ull << below(8)));
      break;
    }
    case 7: {  // one piece many times
      std::string piece = data.substr(at, std::min<size_t>(span, 8));
      if (words_.size() > 0 && below(2) == 0) piece = words_[below(words_.size())];
      std::string many;
      for (size_t n = 1ull << below(10); n > 0; --n) many += piece;
      data.insert(at, many);
      break;
    }
    default:
      if (!words_.empty()) insert_or_replace(words_[below(words_.size())]);
  }
}

}  // namespace vpd::fuzz
