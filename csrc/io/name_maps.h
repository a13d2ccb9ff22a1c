#pragma once
// Parameter names of one network in two layouts: the original one (ldm), which is vpd's own, and
// diffusers'.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vpd::io {

// The networks that files are made of. VAE: the autoencoder, KL or VQ.
enum class NetworkKind { kUNet, kVAE, kCLIPText, kCLIPVision };
enum class Naming { kOriginal, kDiffusers };

std::string_view to_string(NetworkKind kind);

// Renames the keys of one whole network (without prefix). Block numbers depend on how many residual
// blocks a level has and where transformers sit; both are read from the keys, so every config
// works. Position i of the result is the new name of keys[i], nothing where the key belongs to no
// such network. CLIP has the same names in both layouts.
using NewNames = std::vector<std::optional<std::string>>;
NewNames to_original(NetworkKind kind, const std::vector<std::string>& diffusers_keys);
NewNames to_diffusers(NetworkKind kind, const std::vector<std::string>& original_keys);

// The shape of a parameter in the other layout: the projections of the VAE's attention are 1x1
// convolutions [C, C, 1, 1] in the original and linear layers [C, C] in diffusers. `original_key`
// is the name in the original layout.
std::vector<int64_t> shape_in(Naming naming, NetworkKind kind, std::string_view original_key,
                              const std::vector<int64_t>& shape);

}  // namespace vpd::io
