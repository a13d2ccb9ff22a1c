#pragma once
// From tensors to launchers: what the PyTorch side of every CUDA op needs.
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "core/check.h"
#include "ops/cuda/types.h"

namespace vpd::ops::cuda {

inline Type type_of(const char* op, const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return Type::kFloat;
    case at::kDouble:
      return Type::kDouble;
    case at::kHalf:
      return Type::kHalf;
    case at::kBFloat16:
      return Type::kBFloat16;
    default:
      fail(op, ": x must be Float, Double, Half or BFloat16, got ", x.scalar_type());
  }
}

// The kernels read 16 bytes at a time, which a view into the middle of a tensor may not be aligned
// to.
inline at::Tensor aligned(at::Tensor t) {
  return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0 ? t : t.clone();
}

}  // namespace vpd::ops::cuda
