#include "io/weights.h"

#include "io/torch_zip.h"

namespace vpd::io {

WeightsFile read_weights(const std::string& path) {
  const auto file = MappedFile::open(path);
  // A safetensors file has its JSON behind the 8-byte length; a zip has its compression method
  // there, which is 0.
  if (file->size() > 8 && file->bytes()[8] == '{') {
    SafetensorsFile safe = read_safetensors(file);
    return {"safetensors", std::move(safe.tensors), std::move(safe.metadata), "", {}};
  }
  TorchFile torch = read_torch(file);
  return {"torch", std::move(torch.tensors), {}, std::move(torch.entry), std::move(torch.skipped)};
}

}  // namespace vpd::io
