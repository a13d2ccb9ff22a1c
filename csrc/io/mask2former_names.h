#pragma once
// Mask2Former's head by transformers' names, which cut a tensor differently too: queries, keys and
// values of the decoder's self-attention are three tensors there and one in the original.
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace vpd::io {

bool has_transformers_mask2former(const std::vector<std::string>& names);

// The same tensors with every such head, under any prefix, by the original's names: those of
// "model.pixel_level_module.decoder." below "pixel_decoder.", those of "model.transformer_module."
// and "class_predictor." below "predictor.". Tensors of nothing of the kind, and parts of a
// self-attention that lacks one, stay as they are. Throws std::invalid_argument if parts of one
// self-attention do not fit each other.
NamedTensors mask2former_from_transformers(const NamedTensors& file, const std::string& path);

}  // namespace vpd::io
