#pragma once
// The JSON header of a safetensors file, checked against the bytes behind it.
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vpd::io {

using Metadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsEntry {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  uint64_t begin;  // in bytes from the start of the data
  uint64_t end;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of the header
  Metadata metadata;
};

// Parses `json` strictly: one object whose members are tensors or "__metadata__", no duplicate
// keys, valid UTF-8; each tensor's shape and dtype give its byte count; the tensors fill
// `data_size` bytes without overlap or gap. Throws std::invalid_argument starting with `path`.
SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t data_size,
                                           const std::string& path);

// The header of a file to be written. Names and metadata must be UTF-8 (checked by the caller).
std::string format_safetensors_header(const SafetensorsHeader& header);

std::optional<std::string_view> safetensors_dtype_name(at::ScalarType dtype);

}  // namespace vpd::io
