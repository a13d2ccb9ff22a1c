#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>

#include "core/check.h"
#include "io/json_scanner.h"
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

// Reads exactly the JSON that safetensors allows: no recursion, so no depth to exhaust.
class Parser {
 public:
  Parser(std::string_view text, const std::string& path)
      : in_(text, path, "safetensors", "header"), path_(path) {}

  SafetensorsHeader header() {
    SafetensorsHeader header;
    std::set<std::string> names;
    in_.members([&](std::string name) {
      in_.check(names.insert(name).second, "each name once", "'" + name + "' twice");
      if (name == "__metadata__") {
        header.metadata = metadata();
      } else {
        header.entries.push_back(entry(std::move(name)));
      }
    });
    in_.finish();
    return header;
  }

 private:
  Metadata metadata() {
    Metadata metadata;
    std::set<std::string> keys;
    in_.members([&](std::string key) {
      in_.check(keys.insert(key).second, "each metadata key once", "'" + key + "' twice");
      metadata.emplace_back(std::move(key), in_.string());
    });
    return metadata;
  }

  SafetensorsEntry entry(std::string name) {
    std::optional<at::ScalarType> dtype;
    std::optional<std::vector<int64_t>> shape;
    std::optional<std::pair<uint64_t, uint64_t>> offsets;
    const std::string tensor = "tensor '" + name + "'";
    in_.members([&](const std::string& field) {
      if (field == "dtype" && !dtype) {
        dtype = dtype_of(in_.string(), tensor);
      } else if (field == "shape" && !shape) {
        shape.emplace();
        in_.items([&] { shape->push_back(static_cast<int64_t>(in_.integer())); });
      } else if (field == "data_offsets" && !offsets) {
        std::vector<uint64_t> pair;
        in_.items([&] { pair.push_back(in_.integer()); });
        in_.check(pair.size() == 2, "two data_offsets",
                  std::to_string(pair.size()) + " in " + tensor);
        offsets.emplace(pair[0], pair[1]);
      } else {
        in_.check(false, "dtype, shape and data_offsets once each", "'" + field + "' in " + tensor);
      }
    });
    in_.check(dtype && shape && offsets, "dtype, shape and data_offsets", "only some in " + tensor);
    in_.check(shape->size() <= kMaxDims, "at most 64 dimensions",
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

  JsonScanner in_;
  const std::string& path_;
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
