#pragma once
// Types of the kernel launchers. They take raw pointers and a stream and include nothing of
// PyTorch, so that nvcc compiles the .cu files by themselves.
#include <cstdint>

namespace vpd::ops::cuda {

enum class Type { kFloat, kDouble, kHalf, kBFloat16 };

}  // namespace vpd::ops::cuda
