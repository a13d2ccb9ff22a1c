#include "text/tokenizer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <queue>

#include "core/check.h"
#include "io/mapped_file.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace vpd::text {
namespace {

constexpr std::u32string_view kStart = U"<start_of_text>";
constexpr std::u32string_view kEnd = U"<end_of_text>";
constexpr std::string_view kWordEnd = "</w>";
constexpr int32_t kBytes = 256;
// CLIP's file has more lines than CLIP uses.
constexpr int32_t kMostMerges = 49152 - kBytes - 2;

struct ByteSymbols {
  std::array<int32_t, kBytes> ids;          // of each byte
  std::array<std::string, kBytes> symbols;  // by id: how merges.txt writes it
};

// Bytes that print come first and stand for themselves in merges.txt; the others follow, written as
// the characters from U+0100 on.
ByteSymbols byte_symbols() {
  ByteSymbols out;
  const auto prints = [](int32_t byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
  };
  int32_t id = 0;
  char32_t other = 0x100;
  for (const bool pass : {true, false}) {
    for (int32_t byte = 0; byte < kBytes; ++byte) {
      if (prints(byte) != pass) continue;
      append_utf8(out.symbols[id], pass ? static_cast<char32_t>(byte) : other++);
      out.ids[byte] = id++;
    }
  }
  return out;
}

const ByteSymbols& bytes() {
  static const ByteSymbols symbols = byte_symbols();
  return symbols;
}

uint64_t key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

// Characters that CLIP's pattern matches at the head of `text`, which does not start with space.
size_t word_length(std::u32string_view text) {
  using namespace std::literals;
  constexpr std::u32string_view kWhole[] = {kStart,   kEnd,    U"'s"sv,  U"'t"sv, U"'re"sv,
                                            U"'ve"sv, U"'m"sv, U"'ll"sv, U"'d"sv};
  for (const std::u32string_view whole : kWhole) {
    if (text.starts_with(whole)) return whole.size();
  }
  if (is_number(text.front())) return 1;
  const bool letters = is_letter(text.front());
  const auto other = [letters](char32_t code) {
    return letters ? !is_letter(code) : is_letter(code) || is_number(code) || is_space(code);
  };
  return static_cast<size_t>(std::find_if(text.begin(), text.end(), other) - text.begin());
}

std::u32string cleaned(std::string_view text) {
  std::u32string spaced;
  for (char32_t code : decode_utf8(text, "tokenizer")) {
    if (code == 0x2BC || (code >= 0x2018 && code <= 0x201B)) code = U'\'';
    if (code >= 0x201C && code <= 0x201F) code = U'"';
    if (!is_space(code)) {
      spaced += code;
    } else if (!spaced.empty() && spaced.back() != U' ') {
      spaced += U' ';
    }
  }
  if (!spaced.empty() && spaced.back() == U' ') spaced.pop_back();
  return lower(spaced);
}

// At most 80 bytes of a line of UTF-8, whole characters.
std::string_view beginning(std::string_view line) {
  size_t end = std::min<size_t>(line.size(), 80);
  while (end > 0 && end < line.size() && (line[end] & 0xC0) == 0x80) --end;
  return line.substr(0, end);
}

}  // namespace

std::string clean_text(std::string_view text) { return encode_utf8(cleaned(text)); }

Tokenizer::Tokenizer(const std::string& merges) {
  const auto file = io::MappedFile::open(merges);
  std::string_view rest = file->bytes();
  VPD_CHECK(io::is_utf8(rest), merges, ": expected merges as UTF-8 text, got other bytes");
  std::unordered_map<std::string, int32_t> ids;
  for (int32_t id = 0; id < kBytes; ++id) {
    ids.emplace(bytes().symbols[id], id);
    ids.emplace(bytes().symbols[id] + std::string(kWordEnd), id + kBytes);
  }
  int32_t next = 2 * kBytes;
  for (int64_t number = 1; !rest.empty() && next < 2 * kBytes + kMostMerges; ++number) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    // CLIP's own file starts with its name and version.
    if (line.empty() || (number == 1 && line.find("#version") != line.npos)) continue;
    const size_t space = line.find(' ');
    const std::string left(line.substr(0, space));
    const std::string right(space == line.npos ? "" : line.substr(space + 1));
    const auto a = ids.find(left), b = ids.find(right);
    VPD_CHECK(a != ids.end() && b != ids.end(), merges, ", line ", number,
              ": expected two tokens known before it, got '", beginning(line), "'");
    VPD_CHECK(ids.emplace(left + right, next).second, merges, ", line ", number,
              ": expected a new token, got '", left + right, "' again");
    merges_.emplace(key(a->second, b->second), next++);
  }
  VPD_CHECK(!merges_.empty(), merges, ": expected lines of two tokens, got none");
  start_ = next;
}

int32_t Tokenizer::merged(int32_t left, int32_t right) const {
  const auto found = merges_.find(key(left, right));
  return found == merges_.end() ? -1 : found->second;
}

// Merges of lowest rank first, leftmost first. Later tokens have larger ids, so an id is a rank;
// a queue keeps words of any length at n log n.
void Tokenizer::append_word(std::string_view word, std::vector<int64_t>& ids) const {
  struct Part {
    int32_t id;  // -1: merged into its left neighbour
    size_t before, after;
  };
  struct Candidate {
    int32_t merged;
    size_t place;
    int32_t left, right;
    bool operator>(const Candidate& other) const {
      return merged != other.merged ? merged > other.merged : place > other.place;
    }
  };
  const size_t count = word.size();
  std::vector<Part> parts(count);
  for (size_t i = 0; i < count; ++i) {
    parts[i] = {bytes().ids[static_cast<uint8_t>(word[i])], i - 1, i + 1};
  }
  parts.back().id += kBytes;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](size_t left) {
    if (left >= count || parts[left].after >= count) return;
    const int32_t a = parts[left].id, b = parts[parts[left].after].id;
    if (const int32_t both = merged(a, b); both >= 0) queue.push({both, left, a, b});
  };
  for (size_t i = 0; i < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Part& left = parts[best.place];
    if (left.id != best.left || left.after >= count || parts[left.after].id != best.right) continue;
    Part& right = parts[left.after];
    left.id = best.merged;
    right.id = -1;
    left.after = right.after;
    if (right.after < count) parts[right.after].before = best.place;
    offer(left.before);
    offer(best.place);
  }
  for (size_t i = 0; i < count; i = parts[i].after) ids.push_back(parts[i].id);
}

std::vector<int64_t> Tokenizer::encode(std::string_view text) const {
  const std::u32string clean = cleaned(text);
  std::vector<int64_t> ids;
  for (std::u32string_view rest = clean; !rest.empty();) {
    if (is_space(rest.front())) {
      rest.remove_prefix(1);
      continue;
    }
    const std::u32string_view word = rest.substr(0, word_length(rest));
    rest.remove_prefix(word.size());
    if (word == kStart || word == kEnd) {
      ids.push_back(word == kStart ? start() : end());
    } else {
      append_word(encode_utf8(word), ids);
    }
  }
  return ids;
}

Tokens Tokenizer::operator()(const std::vector<std::string>& texts, int64_t length) const {
  VPD_CHECK(length >= 2, "tokenizer: length must be at least 2 (start and end), got ", length);
  const auto rows = static_cast<int64_t>(texts.size());
  Tokens out{at::full({rows, length}, end(), at::kLong), at::empty({rows}, at::kBool)};
  int64_t* row = out.ids.mutable_data_ptr<int64_t>();
  bool* truncated = out.truncated.mutable_data_ptr<bool>();
  for (const std::string& text : texts) {
    const std::vector<int64_t> ids = encode(text);
    const auto kept = std::min(static_cast<int64_t>(ids.size()), length - 2);
    *row = start();
    std::copy_n(ids.begin(), kept, row + 1);
    *truncated++ = kept < static_cast<int64_t>(ids.size());
    row += length;
  }
  return out;
}

std::string find_merges(const std::vector<std::string>& places) {
  std::string looked;
  for (const std::string& place : places) {
    const std::filesystem::path folder(place);
    for (const auto& path : {folder, folder / "merges.txt", folder / "tokenizer" / "merges.txt"}) {
      if (std::filesystem::is_regular_file(path)) return path.string();
    }
    looked += (looked.empty() ? "" : ", ") + place;
  }
  fail("no vocabulary: expected merges.txt or tokenizer/merges.txt in ", looked, ", got none");
}

}  // namespace vpd::text
