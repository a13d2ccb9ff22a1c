#include "diffusion/spacing.h"

#include <algorithm>
#include <cmath>

#include "diffusion/names.h"

namespace vpd::diffusion {

Spacing spacing_named(const std::string& name) {
  return choice_named<Spacing>("spacing", name,
                               {{"leading", Spacing::kLeading},
                                {"linspace", Spacing::kLinspace},
                                {"trailing", Spacing::kTrailing}});
}

std::vector<double> spaced_timesteps(int64_t total, int64_t steps, Spacing spacing, int64_t offset,
                                     bool whole) {
  const auto last = static_cast<double>(total - 1);
  std::vector<double> timesteps;
  for (int64_t i = 0; i < steps; ++i) {
    const auto left = static_cast<double>(steps - 1 - i);
    if (spacing == Spacing::kLeading) {
      const int64_t ratio = total / steps;
      const int64_t shift = std::min(offset, total - 1 - (steps - 1) * ratio);
      timesteps.push_back(left * static_cast<double>(ratio) + static_cast<double>(shift));
    } else if (spacing == Spacing::kLinspace) {
      const double t = i == 0 ? last : left * (last / static_cast<double>(steps - 1));
      timesteps.push_back(whole ? std::nearbyint(t) : t);  // halves to the even one, as NumPy does
    } else {
      const double ratio = static_cast<double>(total) / static_cast<double>(steps);
      const double t = static_cast<double>(total) - static_cast<double>(i) * ratio;
      timesteps.push_back(std::nearbyint(t) - 1);
    }
  }
  return timesteps;
}

}  // namespace vpd::diffusion
