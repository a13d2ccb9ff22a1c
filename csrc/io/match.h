#pragma once
// Which tensor of a file goes to which parameter of a module.
#include <string>
#include <utility>
#include <vector>

#include "io/layouts.h"

namespace vpd::io {

struct Mismatch {
  std::string name;  // of the module
  std::vector<int64_t> expected;
  std::vector<int64_t> got;
};

struct Match {
  std::string layout;                                      // of the file
  std::vector<std::pair<std::string, std::string>> pairs;  // name in the module, name in the file
  std::vector<std::string> missing;                        // of the module, not in the file
  // Missing by design of official checkpoints. VPD's: the text encoder, and in depth the U-Net's
  // unused last convolution. ODISE's: the frozen networks, and what is made from them.
  std::vector<std::string> absent;
  std::vector<std::string> unexpected;  // of the file, for a part the module has
  std::vector<Mismatch> mismatched;     // not among the pairs
};

// Networks are matched by kind, so prefixes may differ between file and module; diffusers' names
// are translated on either side, and [C, D] fits [C, D, 1, 1] there. What belongs to no network
// (heads, adapters) is matched by its name, or, if the module names it below another prefix than
// the file, by the one prefix under which the file has all of its names. Parts of the file that the
// module does not have are not "unexpected", except in files of one network. Throws
// std::invalid_argument for models without a network here, and if it is unclear which network of a
// file is meant.
Match match_weights(const Entries& file, const Entries& module, const std::string& path);

struct Renaming {
  size_t source;  // position in the entries
  std::string target;
  std::vector<int64_t> shape;
};

// New names and shapes for all networks of a file in the other naming. One network gets no prefix;
// several get those of a Stable Diffusion file ("model.diffusion_model.", ...) or of diffusers'
// folders ("unet.", "vae.", "text_encoder."). Throws std::invalid_argument if the file holds
// anything that belongs to no network.
std::vector<Renaming> plan_conversion(const Entries& file, Naming to, const std::string& path);

}  // namespace vpd::io
