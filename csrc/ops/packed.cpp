#include "ops/packed.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mkldnn_reorder_conv2d_weight.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "core/check.h"
#include "ops/cpu/cpu_level.h"

namespace vpd::ops {
namespace {
using at::Tensor;
using Bias = std::optional<Tensor>;
using Scalars = c10::List<std::optional<at::Scalar>>;

template <typename Function>
auto op_of(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

void check_input(const Tensor& x, const Tensor& weight) {
  VPD_CHECK(!(x.requires_grad() && at::GradMode::is_enabled()),
            "a frozen network gives no gradient; call it under torch.no_grad(), or the network it "
            "was made from");
  VPD_CHECK(x.is_cpu() && x.scalar_type() == weight.scalar_type(), "this frozen network takes ",
            weight.scalar_type(), " on the CPU, got ", x.scalar_type(), " on ", x.device());
}

}  // namespace

bool can_pack(const Tensor& weight) {
  using cpu::Level;
  if (!weight.is_cpu() || !at::globalContext().userEnabledMkldnn()) return false;
  return weight.scalar_type() == at::kFloat ||
         (weight.scalar_type() == at::kBFloat16 && cpu::cpu_level() >= Level::kAVX512);
}

Tensor packed_linear_weight(const Tensor& weight) {
  using Reorder = Tensor(const Tensor&, std::optional<int64_t>);
  static const auto op = op_of<Reorder>("mkldnn::_reorder_linear_weight");
  return op.call(weight.contiguous(), std::nullopt);
}

Tensor packed_conv2d_weight(const Tensor& weight, int64_t stride, int64_t padding) {
  return at::mkldnn_reorder_conv2d_weight(weight.contiguous().to_mkldnn(), {padding, padding},
                                          {stride, stride}, {1, 1}, /*groups=*/1);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Bias& bias) {
  if (!weight.is_mkldnn()) return at::linear(x, weight, bias);
  check_input(x, weight);
  using Linear = Tensor(const Tensor&, const Tensor&, const Bias&, c10::string_view, Scalars,
                        std::optional<c10::string_view>);
  static const auto op = op_of<Linear>("mkldnn::_linear_pointwise");
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return op.call(x, weight, bias, "none", Scalars(), "");
}

Tensor packed_conv2d(const Tensor& x, const Tensor& weight, const Bias& bias, int64_t stride,
                     int64_t padding) {
  check_input(x, weight);
  using Convolution =
      Tensor(const Tensor&, const Tensor&, const Bias&, at::IntArrayRef, at::IntArrayRef,
             at::IntArrayRef, int64_t, c10::string_view, Scalars, std::optional<c10::string_view>);
  static const auto op = op_of<Convolution>("mkldnn::_convolution_pointwise");
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return op.call(x, weight, bias, {padding, padding}, {stride, stride}, {1, 1}, /*groups=*/1,
                 "none", Scalars(), "");
}

}  // namespace vpd::ops
