#pragma once
// Errors of the core. A message names who complains, what was expected and what came:
//   VPD_CHECK(x.dim() == 4, "unet: latents must be [I, C, h, w], got ", x.sizes());
// std::invalid_argument becomes ValueError in Python.
#include <sstream>
#include <stdexcept>

namespace vpd {

template <typename... Args>
[[noreturn]] void fail(const Args&... args) {
  std::ostringstream message;
  (message << ... << args);
  throw std::invalid_argument(message.str());
}

}  // namespace vpd

#define VPD_CHECK(condition, ...)    \
  do {                               \
    if (!(condition)) [[unlikely]] { \
      ::vpd::fail(__VA_ARGS__);      \
    }                                \
  } while (false)
