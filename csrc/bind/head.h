#pragma once
// What every bound head takes beside its features.
#include "bind/network.h"
#include "nn/mode.h"

namespace vpd::bind {

// A process group by name and size.
using GroupTuple = std::optional<std::pair<std::string, int64_t>>;

inline nn::Mode mode(bool training, const GroupTuple& group,
                     const std::optional<at::Generator>& generator = std::nullopt) {
  nn::Mode made{.training = training, .group = std::nullopt, .generator = generator};
  if (group) made.group = ops::ProcessGroup{group->first, group->second};
  return made;
}

}  // namespace vpd::bind
