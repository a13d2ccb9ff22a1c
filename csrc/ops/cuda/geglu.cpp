#include "ops/geglu.h"

#include <ATen/ops/empty.h>

#include "ops/cuda/geglu.h"
#include "ops/cuda/glue.h"

namespace vpd::ops::cuda {
namespace {
using at::Tensor;

Tensor geglu_cuda(const Tensor& x_) {
  check_geglu(x_);
  const c10::cuda::CUDAGuard guard(x_.device());
  c10::DimVector sizes(x_.sizes());
  sizes.back() /= 2;
  Tensor y = at::empty(sizes, x_.options());
  if (y.numel() == 0) {
    return y;
  }
  const Tensor x = aligned(x_.contiguous());
  const int64_t width = y.size(-1);
  C10_CUDA_CHECK(launch_geglu(type_of("geglu", x), x.const_data_ptr(), y.mutable_data_ptr(),
                              y.numel() / width, width, c10::cuda::getCurrentCUDAStream()));
  return y;
}

Tensor geglu_backward_cuda(const Tensor& grad_, const Tensor& x_) {
  check_geglu_backward(grad_, x_);
  const c10::cuda::CUDAGuard guard(x_.device());
  Tensor grad_x = at::empty(x_.sizes(), x_.options());
  if (grad_x.numel() == 0) {
    return grad_x;
  }
  const Tensor x = aligned(x_.contiguous());
  const Tensor grad = aligned(grad_.to(x.scalar_type()).contiguous());
  const int64_t width = grad.size(-1);
  C10_CUDA_CHECK(launch_geglu_backward(
      type_of("geglu_backward", x), grad.const_data_ptr(), x.const_data_ptr(),
      grad_x.mutable_data_ptr(), grad.numel() / width, width, c10::cuda::getCurrentCUDAStream()));
  return grad_x;
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CUDA, m) {
  m.impl("geglu", geglu_cuda);
  m.impl("geglu_backward", geglu_backward_cuda);
}

}  // namespace vpd::ops::cuda
