#pragma once
// safetensors files: read as views of a mapped file, written so that a file is either whole or
// absent.
#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "io/mapped_file.h"
#include "io/safetensors_header.h"

namespace vpd::io {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct SafetensorsFile {
  NamedTensors tensors;  // in the order of the header; CPU, zero-copy
  Metadata metadata;
};

// Any mistake in the file is a std::invalid_argument naming file, expectation and finding.
SafetensorsFile read_safetensors(const std::shared_ptr<MappedFile>& file);

// Writes to a temporary beside `path` and renames it; on failure (std::system_error) nothing is
// left behind. Tensors may be on any device and of any strides; dtypes F64 F32 F16 BF16 I64 I32 I16
// I8 U8 BOOL.
void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const Metadata& metadata = {});

}  // namespace vpd::io
