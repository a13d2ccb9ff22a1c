#pragma once
// CLIP by OpenAI's names, which open_clip has too: "visual.conv1.weight", "transformer.resblocks.0
// .attn.in_proj_weight". Unlike every other layout it also cuts tensors differently: query, key and
// value are one tensor, and projections are stored transposed.
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace vpd::io {

bool has_openai_clip(const std::vector<std::string>& names);

// The same tensors with every such tower, under any prefix, by transformers' names; parts are
// views. Tensors of nothing of the kind stay as they are. Throws std::invalid_argument for a tensor
// of a tower that has no place in CLIP, or of a shape that cannot be cut.
NamedTensors openai_clip_to_transformers(const NamedTensors& file, const std::string& path);

}  // namespace vpd::io
