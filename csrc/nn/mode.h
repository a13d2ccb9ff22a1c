#pragma once
#include <ATen/core/Generator.h>

#include <optional>

#include "ops/batch_norm.h"

namespace vpd::nn {

// How layers are run that train and evaluate differently.
struct Mode {
  bool training = false;
  // Processes whose rows batch norms take together; each for itself if none.
  std::optional<ops::ProcessGroup> group = std::nullopt;
  // What dropout draws from; PyTorch's default generator if none.
  std::optional<at::Generator> generator = std::nullopt;

  const ops::ProcessGroup* processes() const { return group ? &*group : nullptr; }
};

}  // namespace vpd::nn
