#include "ops/packed.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mkldnn_reorder_conv2d_weight.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/check.h"
#include "ops/cpu/cpu_level.h"

namespace vpd::ops {
namespace {
using at::Tensor;
using Bias = std::optional<Tensor>;
using Scalars = c10::List<std::optional<at::Scalar>>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename Function>
auto op_of(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

void check_input(const Tensor& x, const Tensor& weight) {
  VPD_CHECK(x.is_cpu() && x.scalar_type() == weight.scalar_type(), "this frozen network takes ",
            weight.scalar_type(), " on the CPU, got ", x.scalar_type(), " on ", x.device());
}

bool differentiated(const Tensor& x, const Tensor& backward) {
  if (!x.requires_grad() || !at::GradMode::is_enabled()) return false;
  VPD_CHECK(backward.defined(),
            "this frozen network gives no gradient; call it under torch.no_grad(), or freeze it "
            "with gradients=True");
  return true;
}

Tensor multiply(const Tensor& x, const Tensor& weight, const Bias& bias) {
  using Linear = Tensor(const Tensor&, const Tensor&, const Bias&, c10::string_view, Scalars,
                        std::optional<c10::string_view>);
  static const auto op = op_of<Linear>("mkldnn::_linear_pointwise");
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return op.call(x, weight, bias, "none", Scalars(), "");
}

Tensor convolve(const Tensor& x, const Tensor& weight, const Bias& bias, int64_t stride,
                int64_t padding) {
  using Convolution =
      Tensor(const Tensor&, const Tensor&, const Bias&, at::IntArrayRef, at::IntArrayRef,
             at::IntArrayRef, int64_t, c10::string_view, Scalars, std::optional<c10::string_view>);
  static const auto op = op_of<Convolution>("mkldnn::_convolution_pointwise");
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return op.call(x, weight, bias, {padding, padding}, {stride, stride}, {1, 1}, /*groups=*/1,
                 "none", Scalars(), "");
}

class PackedLinear : public torch::autograd::Function<PackedLinear> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Bias& bias, const Tensor& backward) {
    ctx->saved_data["backward"] = backward;
    return multiply(x, weight, bias);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor weight = ctx->saved_data["backward"].toTensor();
    return {multiply(grads[0], weight, std::nullopt), Tensor(), Tensor(), Tensor()};
  }
};

class PackedConv2d : public torch::autograd::Function<PackedConv2d> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Bias& bias, int64_t stride, int64_t padding, const Tensor& backward) {
    ctx->saved_data["backward"] = backward;
    ctx->saved_data["kernel"] = weight.size(2);
    ctx->saved_data["sizes"] = x.sizes();
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["padding"] = padding;
    return convolve(x, weight, bias, stride, padding);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor weight = ctx->saved_data["backward"].toTensor();
    const int64_t stride = ctx->saved_data["stride"].toInt();
    const int64_t padding = ctx->saved_data["padding"].toInt();
    variable_list result(6);
    if (weight.is_mkldnn()) {
      const int64_t kernel = ctx->saved_data["kernel"].toInt();
      result[0] = convolve(grads[0], weight, std::nullopt, 1, kernel - 1 - padding);
    } else {  // of x, its gradient asks for the size alone
      const Tensor x = grads[0].new_empty({1}).expand(ctx->saved_data["sizes"].toIntVector());
      result[0] = std::get<0>(at::convolution_backward(
          grads[0], x, weight, std::nullopt, {stride, stride}, {padding, padding}, {1, 1},
          /*transposed=*/false, {0, 0}, /*groups=*/1, {true, false, false}));
    }
    return result;
  }
};

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

Tensor conv2d_weight_backward(const Tensor& weight, int64_t stride, int64_t padding) {
  if (stride != 1) return weight.contiguous(at::MemoryFormat::ChannelsLast);
  return packed_conv2d_weight(weight.flip({2, 3}).transpose(0, 1), 1, weight.size(2) - 1 - padding);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Bias& bias, const Tensor& backward) {
  if (!weight.is_mkldnn()) return at::linear(x, weight, bias);
  check_input(x, weight);
  if (differentiated(x, backward)) return PackedLinear::apply(x, weight, bias, backward);
  return multiply(x, weight, bias);
}

Tensor packed_conv2d(const Tensor& x, const Tensor& weight, const Bias& bias, int64_t stride,
                     int64_t padding, const Tensor& backward) {
  check_input(x, weight);
  if (differentiated(x, backward)) {
    return PackedConv2d::apply(x, weight, bias, stride, padding, backward);
  }
  return convolve(x, weight, bias, stride, padding);
}

}  // namespace vpd::ops
