#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <limits>
#include <set>

#include "core/check.h"
#include "io/mapped_file.h"

namespace vpd::io {
namespace {

constexpr size_t kMaxDims = 64;  // PyTorch's own limit

constexpr std::array<std::pair<std::string_view, at::ScalarType>, 10> kDtypes = {{
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
}};

void append_utf8(std::string& out, uint32_t code) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6)), put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12)), put(0x80 | ((code >> 6) & 0x3F)), put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18)), put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F)), put(0x80 | (code & 0x3F));
  }
}

// Reads exactly the JSON that safetensors allows: no recursion, so no depth to exhaust.
class Parser {
 public:
  Parser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  SafetensorsHeader header() {
    SafetensorsHeader header;
    std::set<std::string> names;
    members([&](std::string name) {
      check(names.insert(name).second, "each name once", "'" + name + "' twice");
      if (name == "__metadata__") {
        header.metadata = metadata();
      } else {
        header.entries.push_back(entry(std::move(name)));
      }
    });
    skip_space();
    check(at_ == text_.size(), "nothing but spaces after the closing brace", here());
    return header;
  }

 private:
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

  template <typename Item>
  void items(Item&& item) {
    expect('[');
    if (accept(']')) return;
    do {
      item();
    } while (accept(','));
    expect(']');
  }

  Metadata metadata() {
    Metadata metadata;
    std::set<std::string> keys;
    members([&](std::string key) {
      check(keys.insert(key).second, "each metadata key once", "'" + key + "' twice");
      metadata.emplace_back(std::move(key), string());
    });
    return metadata;
  }

  SafetensorsEntry entry(std::string name) {
    std::optional<at::ScalarType> dtype;
    std::optional<std::vector<int64_t>> shape;
    std::optional<std::pair<uint64_t, uint64_t>> offsets;
    const std::string tensor = "tensor '" + name + "'";
    members([&](const std::string& field) {
      if (field == "dtype" && !dtype) {
        dtype = dtype_of(string(), tensor);
      } else if (field == "shape" && !shape) {
        shape.emplace();
        items([&] { shape->push_back(static_cast<int64_t>(number())); });
      } else if (field == "data_offsets" && !offsets) {
        std::vector<uint64_t> pair;
        items([&] { pair.push_back(number()); });
        check(pair.size() == 2, "two data_offsets", std::to_string(pair.size()) + " in " + tensor);
        offsets.emplace(pair[0], pair[1]);
      } else {
        check(false, "dtype, shape and data_offsets once each", "'" + field + "' in " + tensor);
      }
    });
    check(dtype && shape && offsets, "dtype, shape and data_offsets", "only some in " + tensor);
    check(shape->size() <= kMaxDims, "at most 64 dimensions",
          std::to_string(shape->size()) + " in " + tensor);
    return {std::move(name), *dtype, std::move(*shape), offsets->first, offsets->second};
  }

  at::ScalarType dtype_of(const std::string& name, const std::string& tensor) {
    for (const auto& [known, dtype] : kDtypes) {
      if (name == known) return dtype;
    }
    fail(path_, ": dtype of ", tensor,
         " must be one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL, got '", name, "'");
  }

  uint64_t number() {
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

  std::string string() {
    expect('"');
    std::string out;
    while (true) {
      const auto c = static_cast<uint8_t>(next());
      if (c == '"') break;
      check(c >= 0x20, "an escaped control character", "byte " + std::to_string(c));
      if (c == '\\') {
        append_utf8(out, escape());
      } else {
        out.push_back(static_cast<char>(c));
      }
    }
    check(is_utf8(out), "UTF-8 text", "a string with invalid bytes");
    return out;
  }

  uint32_t escape() {
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

  uint32_t hex4() {
    uint32_t code = 0;
    check(text_.size() - at_ >= 4, "four hexadecimal digits", "the end of the header");
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, begin + 4, code, 16);
    check(error == std::errc() && end == begin + 4, "four hexadecimal digits", here());
    at_ += 4;
    return code;
  }

  void skip_space() {
    while (at_ < text_.size() &&
           std::string_view(" \n\r\t").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
  }

  bool accept(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) { check(accept(c), std::string("'") + c + "'", here()); }

  char next() {
    check(at_ < text_.size(), "a closing quote", here());
    return text_[at_++];
  }

  std::string here() const {
    if (at_ >= text_.size()) return "the end of the header";
    const auto c = static_cast<uint8_t>(text_[at_]);
    const std::string shown =
        c > 0x20 && c < 0x7F ? std::string("'") + text_[at_] + "'" : "byte " + std::to_string(c);
    return shown + " at header offset " + std::to_string(at_);
  }

  void check(bool ok, const std::string& expected, const std::string& got) const {
    VPD_CHECK(ok, path_, ": bad safetensors header: expected ", expected, ", got ", got);
  }

  std::string_view text_;
  const std::string& path_;
  size_t at_ = 0;
};

void check_ranges(const SafetensorsHeader& header, uint64_t data_size, const std::string& path) {
  std::vector<const SafetensorsEntry*> sorted;
  for (const SafetensorsEntry& entry : header.entries) {
    const auto count = element_count(entry.shape);
    const auto item = static_cast<int64_t>(c10::elementSize(entry.dtype));
    int64_t bytes = 0;
    VPD_CHECK(count && !__builtin_mul_overflow(*count, item, &bytes), path, ": shape of tensor '",
              entry.name, "' overflows 64 bits");
    VPD_CHECK(entry.begin <= entry.end && entry.end <= data_size, path, ": data of tensor '",
              entry.name, "' must lie inside the ", data_size, " bytes behind the header, got [",
              entry.begin, ", ", entry.end, "); the file is damaged or truncated");
    VPD_CHECK(static_cast<uint64_t>(bytes) == entry.end - entry.begin, path, ": tensor '",
              entry.name, "' needs ", bytes, " bytes by its shape and dtype, got ",
              entry.end - entry.begin);
    sorted.push_back(&entry);
  }
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t filled = 0;
  for (const SafetensorsEntry* entry : sorted) {
    VPD_CHECK(entry->begin == filled, path, ": data of tensor '", entry->name,
              "' must begin where the one before ends, at ", filled, ", got ", entry->begin);
    filled = entry->end;
  }
  VPD_CHECK(filled == data_size, path, ": the header describes ", filled,
            " bytes of data, the file holds ", data_size);
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<uint8_t>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t data_size,
                                           const std::string& path) {
  SafetensorsHeader header = Parser(json, path).header();
  check_ranges(header, data_size, path);
  return header;
}

std::string format_safetensors_header(const SafetensorsHeader& header) {
  std::string json = "{";
  const auto member = [&json](std::string_view name) -> std::string& {
    if (json.back() != '{') json += ',';
    return (json += json_string(name)) += ':';
  };
  if (!header.metadata.empty()) {
    member("__metadata__") += '{';
    for (const auto& [key, value] : header.metadata) member(key) += json_string(value);
    json += '}';
  }
  for (const SafetensorsEntry& entry : header.entries) {
    std::string shape;
    for (const int64_t size : entry.shape) {
      if (!shape.empty()) shape += ',';
      shape += std::to_string(size);
    }
    std::string& out = member(entry.name);
    out += "{\"dtype\":";
    out += json_string(*safetensors_dtype_name(entry.dtype));
    out += ",\"shape\":[";
    out += shape;
    out += "],\"data_offsets\":[";
    out += std::to_string(entry.begin);
    out += ',';
    out += std::to_string(entry.end);
    out += "]}";
  }
  return json + '}';
}

std::optional<std::string_view> safetensors_dtype_name(at::ScalarType dtype) {
  for (const auto& [name, known] : kDtypes) {
    if (dtype == known) return name;
  }
  return std::nullopt;
}

}  // namespace vpd::io
