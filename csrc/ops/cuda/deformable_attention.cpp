#include "ops/deformable_attention.h"

#include <ATen/Context.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/cuda/deformable_attention.h"
#include "ops/cuda/glue.h"

namespace vpd::ops::cuda {
namespace {
using at::Tensor;

DeformableSizes sizes_of(const Tensor& value, const Tensor& locations) {
  return {.batch = value.size(0),
          .pixels = value.size(1),
          .heads = value.size(2),
          .width = value.size(3),
          .queries = locations.size(1),
          .levels = locations.size(3),
          .points = locations.size(4)};
}

Tensor deformable_attention_cuda(const Tensor& value_, const Tensor& shapes_,
                                 const Tensor& locations_, const Tensor& weights_) {
  check_deformable_attention(value_, shapes_, locations_, weights_);
  const c10::cuda::CUDAGuard guard(value_.device());
  const DeformableSizes sizes = sizes_of(value_, locations_);
  const c10::DimVector shape{sizes.batch, sizes.queries, sizes.heads * sizes.width};
  if (value_.numel() == 0 || weights_.numel() == 0) {
    return at::zeros(shape, value_.options());
  }
  const auto type = at::toOpMathType(value_.scalar_type());
  const Tensor value = aligned(value_.contiguous());
  const Tensor shapes = shapes_.to(value.device()).contiguous();
  const Tensor locations = locations_.to(type).contiguous();
  const Tensor weights = weights_.to(type).contiguous();
  Tensor out = at::empty(shape, value.options());
  C10_CUDA_CHECK(launch_deformable_attention(
      type_of("deformable_attention", value), sizes, value.const_data_ptr(),
      shapes.const_data_ptr<int64_t>(), locations.const_data_ptr(), weights.const_data_ptr(),
      out.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> deformable_attention_backward_cuda(const Tensor& grad_,
                                                                      const Tensor& value_,
                                                                      const Tensor& shapes_,
                                                                      const Tensor& locations_,
                                                                      const Tensor& weights_) {
  check_deformable_attention_backward(grad_, value_, shapes_, locations_, weights_);
  at::globalContext().alertNotDeterministic("deformable_attention_backward");
  const c10::cuda::CUDAGuard guard(value_.device());
  if (value_.numel() == 0 || weights_.numel() == 0) {
    const auto zeros = [](const Tensor& t) { return at::zeros(t.sizes(), t.options()); };
    return {zeros(value_), zeros(locations_), zeros(weights_)};
  }
  const auto type = at::toOpMathType(value_.scalar_type());
  const Tensor value = value_.contiguous(), grad = grad_.to(value.scalar_type()).contiguous();
  const Tensor shapes = shapes_.to(value.device()).contiguous();
  const Tensor locations = locations_.to(type).contiguous();
  const Tensor weights = weights_.to(type).contiguous();
  Tensor grad_value = at::zeros(value.sizes(), value.options().dtype(type));
  Tensor grad_locations = at::empty(locations.sizes(), locations.options());
  Tensor grad_weights = at::empty(weights.sizes(), weights.options());
  C10_CUDA_CHECK(launch_deformable_attention_backward(
      type_of("deformable_attention_backward", value), sizes_of(value, locations),
      grad.const_data_ptr(), value.const_data_ptr(), shapes.const_data_ptr<int64_t>(),
      locations.const_data_ptr(), weights.const_data_ptr(), grad_value.mutable_data_ptr(),
      grad_locations.mutable_data_ptr(), grad_weights.mutable_data_ptr(),
      c10::cuda::getCurrentCUDAStream()));
  return {grad_value.to(value_.scalar_type()), grad_locations.to(locations_.scalar_type()),
          grad_weights.to(weights_.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CUDA, m) {
  m.impl("deformable_attention", deformable_attention_cuda);
  m.impl("deformable_attention_backward", deformable_attention_backward_cuda);
}

}  // namespace vpd::ops::cuda
