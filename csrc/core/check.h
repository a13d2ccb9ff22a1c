#pragma once
// Errors of the core. A message names who complains, what was expected and what came:
//   VPD_CHECK(x.dim() == 4, "unet: latents must be [I, C, h, w], got ", x.sizes());
// std::invalid_argument becomes ValueError in Python.
#include <ATen/core/Tensor.h>

#include <sstream>
#include <stdexcept>

namespace vpd {

template <typename... Args>
[[noreturn]] void fail(const Args&... args) {
  std::ostringstream message;
  (message << ... << args);
  throw std::invalid_argument(message.str());
}

// Whether a tensor's values can be looked at without waiting for a device: not those of a GPU, and
// not those of meta and fake tensors, which have none.
inline bool has_values(const at::Tensor& t) {
  return t.is_cpu() && t.numel() > 0 && !t.unsafeGetTensorImpl()->is_python_dispatch();
}

}  // namespace vpd

#define VPD_CHECK(condition, ...)    \
  do {                               \
    if (!(condition)) [[unlikely]] { \
      ::vpd::fail(__VA_ARGS__);      \
    }                                \
  } while (false)
