#include "nn/sine_position.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <numbers>

namespace vpd::nn {
namespace {

constexpr double kTemperature = 10000, kTurn = 2 * std::numbers::pi;
constexpr double kTiny = 1e-6;  // the original's, which divides by it; kept to give the same

// Of `count` places along one axis. [count, channels]
at::Tensor waves(int64_t count, int64_t channels, const at::TensorOptions& options) {
  const double step = kTurn / (static_cast<double>(count) + kTiny);
  const double slower = -2 * std::log(kTemperature) / static_cast<double>(channels);
  const at::Tensor places = at::arange(1, count + 1, options) * step;
  const at::Tensor frequencies = (at::arange(channels / 2, options) * slower).exp();
  const at::Tensor angles = places.unsqueeze(1) * frequencies;
  return at::stack({angles.sin(), angles.cos()}, -1).flatten(1);
}

}  // namespace

at::Tensor sine_position(int64_t height, int64_t width, int64_t channels,
                         const at::TensorOptions& options) {
  const int64_t half = channels / 2;
  const at::Tensor rows = waves(height, half, options).unsqueeze(1).expand({-1, width, -1});
  const at::Tensor columns = waves(width, half, options).unsqueeze(0).expand({height, -1, -1});
  return at::cat({rows, columns}, -1).flatten(0, 1);
}

}  // namespace vpd::nn
