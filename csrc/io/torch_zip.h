#pragma once
// PyTorch's own files (.ckpt, .pth, .pt, .bin): a zip of a pickle and raw storages.
#include <memory>
#include <string>
#include <vector>

#include "io/mapped_file.h"
#include "io/safetensors.h"

namespace vpd::io {

struct TorchFile {
  NamedTensors tensors;  // zero-copy; "tensor" if the file holds a single tensor
  std::string entry;  // which entry held them ("state_dict", "model", ...), "" for the whole file
  std::vector<std::string> skipped;  // classes of objects that were left out
};

// Reads the state dict of a file: the root dict, or its entry "state_dict", "model" or the only one
// with tensors. Objects other than tensors and plain data are left out and named; nothing is
// imported or run. Throws std::invalid_argument for anything else, with the way out for old and
// foreign formats.
TorchFile read_torch(const std::shared_ptr<MappedFile>& file);

}  // namespace vpd::io
