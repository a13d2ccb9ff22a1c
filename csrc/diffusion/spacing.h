#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace vpd::diffusion {

// Which of the T training timesteps a sampler visits (Lin et al. 2024, table 2).
enum class Spacing {
  kLeading,   // 0, r, 2r, .. with r = T / steps rounded down, shifted by an offset
  kLinspace,  // from 0 to T - 1, both included
  kTrailing,  // T - 1, T - 1 - r, .. with r = T / steps
};

Spacing spacing_named(const std::string& name);

// `steps` timesteps, 1 to `total`, noisiest first. `offset` is for kLeading alone; with all
// timesteps there is no room for it. Those of kLinspace are rounded to whole ones if `whole`, the
// others always are.
std::vector<double> spaced_timesteps(int64_t total, int64_t steps, Spacing spacing, int64_t offset,
                                     bool whole);

}  // namespace vpd::diffusion
