#include "ops/group_norm_silu.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "ops/cuda/glue.h"
#include "ops/cuda/group_norm_silu.h"

namespace vpd::ops::cuda {
namespace {
using at::Tensor;

GroupNormShape shape_of(const Tensor& x, int64_t groups) {
  const GroupNormShape shape{x.size(0), x.size(1), x.size(2) * x.size(3), groups,
                             x.is_contiguous(at::MemoryFormat::ChannelsLast)};
  VPD_CHECK(shape.channels * shape.pixels <= std::numeric_limits<int32_t>::max(),
            "group_norm_silu: an image of x must hold fewer than 2^31 values on CUDA, got ",
            x.sizes());
  return shape;
}

Tensor scratch_for(const Tensor& x, const GroupNormShape& shape) {
  const size_t bytes = group_norm_silu_scratch(type_of("group_norm_silu", x), shape);
  return at::empty({static_cast<int64_t>(bytes)}, x.options().dtype(at::kByte));
}

std::tuple<Tensor, Tensor, Tensor> forward_cuda(const Tensor& x_, const Tensor& weight_,
                                                const Tensor& bias_, int64_t groups, double eps,
                                                bool silu) {
  check_group_norm_silu(x_, weight_, bias_, groups, eps);
  const c10::cuda::CUDAGuard guard(x_.device());
  const at::MemoryFormat format = x_.suggest_memory_format();
  const at::ScalarType type = at::toOpMathType(x_.scalar_type());
  Tensor y = at::empty(x_.sizes(), x_.options(), format);
  Tensor mean = at::zeros({x_.size(0), groups}, x_.options().dtype(type));
  Tensor rstd = at::zeros_like(mean);
  if (x_.numel() == 0) {
    return {y, mean, rstd};
  }
  const Tensor x = aligned(x_.contiguous(format));
  const Tensor weight = weight_.to(type).contiguous(), bias = bias_.to(type).contiguous();
  const GroupNormShape shape = shape_of(x, groups);
  const Tensor scratch = scratch_for(x, shape);
  C10_CUDA_CHECK(launch_group_norm_silu({.type = type_of("group_norm_silu", x),
                                         .shape = shape,
                                         .x = x.const_data_ptr(),
                                         .weight = weight.const_data_ptr(),
                                         .bias = bias.const_data_ptr(),
                                         .eps = eps,
                                         .silu = silu,
                                         .y = y.mutable_data_ptr(),
                                         .mean = mean.mutable_data_ptr(),
                                         .rstd = rstd.mutable_data_ptr(),
                                         .scratch = scratch.mutable_data_ptr()},
                                        c10::cuda::getCurrentCUDAStream()));
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> backward_cuda(const Tensor& grad_, const Tensor& x_,
                                                 const Tensor& weight_, const Tensor& bias_,
                                                 const Tensor& mean_, const Tensor& rstd_,
                                                 int64_t groups, bool silu,
                                                 std::array<bool, 3> wanted) {
  check_group_norm_silu_backward(grad_, x_, weight_, bias_, mean_, rstd_, groups);
  const c10::cuda::CUDAGuard guard(x_.device());
  const at::MemoryFormat format = x_.suggest_memory_format();
  const at::ScalarType type = at::toOpMathType(x_.scalar_type());
  Tensor grad_x = wanted[0] ? at::empty(x_.sizes(), x_.options(), format) : Tensor();
  const auto affine = [&](bool want) {
    return want ? at::zeros({x_.size(1)}, x_.options().dtype(type)) : Tensor();
  };
  Tensor grad_weight = affine(wanted[1]), grad_bias = affine(wanted[2]);
  if (x_.numel() > 0) {
    const Tensor x = aligned(x_.contiguous(format));
    const Tensor grad = aligned(grad_.to(x.scalar_type()).contiguous(format));
    const Tensor weight = weight_.to(type).contiguous(), bias = bias_.to(type).contiguous();
    const Tensor mean = mean_.to(type).contiguous(), rstd = rstd_.to(type).contiguous();
    const GroupNormShape shape = shape_of(x, groups);
    const Tensor scratch = scratch_for(x, shape);
    const auto target = [](const Tensor& t) {
      return t.defined() ? t.mutable_data_ptr() : nullptr;
    };
    C10_CUDA_CHECK(launch_group_norm_silu_backward({.type = type_of("group_norm_silu_backward", x),
                                                    .shape = shape,
                                                    .grad = grad.const_data_ptr(),
                                                    .x = x.const_data_ptr(),
                                                    .weight = weight.const_data_ptr(),
                                                    .bias = bias.const_data_ptr(),
                                                    .mean = mean.const_data_ptr(),
                                                    .rstd = rstd.const_data_ptr(),
                                                    .silu = silu,
                                                    .grad_x = target(grad_x),
                                                    .grad_weight = target(grad_weight),
                                                    .grad_bias = target(grad_bias),
                                                    .scratch = scratch.mutable_data_ptr()},
                                                   c10::cuda::getCurrentCUDAStream()));
  }
  return {grad_x, wanted[1] ? grad_weight.to(weight_.scalar_type()) : Tensor(),
          wanted[2] ? grad_bias.to(bias_.scalar_type()) : Tensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CUDA, m) {
  m.impl("group_norm_silu_forward", forward_cuda);
  m.impl("group_norm_silu_backward", backward_cuda);
}

}  // namespace vpd::ops::cuda
