#pragma once
// What a file of weights is, told by its key set alone.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/name_maps.h"

namespace vpd::io {

// A tensor of a file, or a parameter of a module, without its data.
struct Entry {
  std::string name;
  std::vector<int64_t> shape;
};
using Entries = std::vector<Entry>;

// One network found in a key set.
struct Network {
  NetworkKind kind;
  Naming naming;
  std::string prefix;  // what stands before its own names, "" or ending in a dot
  // Position in the key set -> original name below the prefix.
  std::map<size_t, std::string> names;
};

// Finds U-Nets, autoencoders and CLIP towers, in the original and in diffusers' naming, under any
// prefix.
std::vector<Network> find_networks(const Entries& entries);

// Names: "sd" (Stable Diffusion v1 or InstructPix2Pix in one file); "vpd-refer", "vpd-seg",
// "vpd-depth" (the official checkpoints); "diffusers" (several networks), "diffusers-unet",
// "diffusers-vae"; "ldm-unet", "ldm-vae" (one network by its original names); "clip-text",
// "clip-vision", "clip"; "openai-clip" (io/openai_clip.h); "mmseg" (a segmenter of mmsegmentation
// on a backbone that is none of these), "transformers-upernet"; "mask2former" (its head, whatever
// is beside it), "transformers-mask2former" (io/mask2former_names.h); "odise" (what ODISE trains,
// without the models that it leaves frozen); "vpd" (several networks by their original names);
// "unknown".
std::string detect_layout(const Entries& entries, const std::vector<Network>& networks);

// Whether published files of a layout leave out a network by design, or a parameter that is part of
// none: VPD's the text encoder; ODISE's all that is frozen.
bool leaves_out(std::string_view layout, NetworkKind kind);
bool leaves_out(std::string_view layout, std::string_view parameter);

// Throws std::invalid_argument for models vpd has no network for: Stable Diffusion 2.x and XL.
void refuse_other_models(const Entries& entries, const std::string& path);

// Entries that published files may hold and no network needs: schedule tables, moving averages,
// training losses.
bool is_ignorable(std::string_view name);

}  // namespace vpd::io
