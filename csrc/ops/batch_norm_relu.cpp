#include "ops/batch_norm_relu.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "core/fake.h"
#include "ops/cpu/simd.h"

namespace vpd::ops {
namespace {
using at::Tensor;
using cpu::load;
using cpu::store;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kBlock = 128;  // pixels that are summed up together: they stay in the cache

// Mean and sum of squared distances from it, of each channel over a block of pixels [n, C].
template <typename T, typename A>
struct BlockMoments {
  static VPD_INLINE void run(const T* x, int64_t n, int64_t channels, A* mean, A* squares) {
    for (int64_t c = 0; c < channels; ++c) mean[c] = squares[c] = 0;
    for (int64_t i = 0; i < n; ++i) {
      const T* __restrict row = x + i * channels;
      A* __restrict sum = mean;
      for (int64_t c = 0; c < channels; ++c) sum[c] += load(row[c]);
    }
    const A share = A(1) / static_cast<A>(n);
    for (int64_t c = 0; c < channels; ++c) mean[c] *= share;
    for (int64_t i = 0; i < n; ++i) {
      const T* __restrict row = x + i * channels;
      const A* __restrict center = mean;
      A* __restrict sum = squares;
      for (int64_t c = 0; c < channels; ++c) {
        const A far = load(row[c]) - center[c];
        sum[c] += far * far;
      }
    }
  }
};

template <typename T, typename A>
struct NormRelu {
  static VPD_INLINE void run(const T* x, T* y, int64_t n, int64_t channels, const A* scale,
                             const A* shift) {
    for (int64_t i = 0; i < n; ++i) {
      const T* __restrict row = x + i * channels;
      T* __restrict to = y + i * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const A value = load(row[c]) * scale[c] + shift[c];
        store(to[c], value > 0 ? value : A(0));
      }
    }
  }
};

// Sums, over a block, of the gradient where y > 0 and of its product with x - mean.
template <typename T, typename A>
struct BlockGradients {
  static VPD_INLINE void run(const T* grad, const T* x, int64_t n, int64_t channels, const A* mean,
                             const A* scale, const A* shift, A* sum, A* product) {
    for (int64_t c = 0; c < channels; ++c) sum[c] = product[c] = 0;
    for (int64_t i = 0; i < n; ++i) {
      const T* __restrict row = x + i * channels;
      const T* __restrict from = grad + i * channels;
      A* __restrict s = sum;
      A* __restrict p = product;
      for (int64_t c = 0; c < channels; ++c) {
        const A value = load(row[c]);
        const A own = value * scale[c] + shift[c] > 0 ? static_cast<A>(load(from[c])) : A(0);
        s[c] += own;
        p[c] += own * (value - mean[c]);
      }
    }
  }
};

// scale (grad where y > 0 - a - b (x - mean))
template <typename T, typename A>
struct InputGradient {
  static VPD_INLINE void run(const T* grad, const T* x, T* to, int64_t n, int64_t channels,
                             const A* mean, const A* scale, const A* shift, const A* a,
                             const A* b) {
    for (int64_t i = 0; i < n; ++i) {
      const T* __restrict row = x + i * channels;
      const T* __restrict from = grad + i * channels;
      T* __restrict out = to + i * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const A value = load(row[c]);
        const A own = value * scale[c] + shift[c] > 0 ? static_cast<A>(load(from[c])) : A(0);
        store(out[c], scale[c] * (own - a[c] - b[c] * (value - mean[c])));
      }
    }
  }
};

// Of each block of pixels two rows of sums, [blocks, 2, C], by `run(block's begin, its end, rows)`.
template <typename A, typename Run>
std::vector<A> by_block(int64_t pixels, int64_t channels, const Run& run) {
  const int64_t blocks = (pixels + kBlock - 1) / kBlock;
  std::vector<A> sums(static_cast<size_t>(blocks * 2 * channels));
  at::parallel_for(0, blocks, 8, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      run(block * kBlock, std::min(pixels, (block + 1) * kBlock),
          sums.data() + block * 2 * channels);
    }
  });
  return sums;
}

struct Size {
  int64_t pixels, channels;
  explicit Size(const Tensor& x) : pixels(x.numel() / x.size(1)), channels(x.size(1)) {}
};

// A per-channel tensor in what is computed with.
template <typename A>
std::vector<A> values(const Tensor& t) {
  const Tensor wide = t.detach().to(c10::CppTypeToScalarType<A>::value).contiguous();
  const A* first = wide.template const_data_ptr<A>();
  return {first, first + wide.numel()};
}

struct Statistics {
  std::vector<double> mean, variance;  // biased
};

template <typename T>
Statistics statistics(const Tensor& x) {
  using A = at::opmath_type<T>;
  const Size size(x);
  const T* from = x.const_data_ptr<T>();
  const std::vector<A> blocks =
      by_block<A>(size.pixels, size.channels, [&](int64_t begin, int64_t end, A* rows) {
        cpu::run_fastest<BlockMoments<T, A>>(from + begin * size.channels, end - begin,
                                             size.channels, rows, rows + size.channels);
      });
  const size_t channels = static_cast<size_t>(size.channels);
  Statistics found{std::vector<double>(channels), std::vector<double>(channels)};
  double count = 0;
  for (size_t at = 0; at < blocks.size(); at += 2 * channels) {  // Chan et al. 1979
    const double n = std::min<double>(kBlock, static_cast<double>(size.pixels) - count);
    const double all = count + n;
    for (size_t c = 0; c < channels; ++c) {
      const double far = blocks[at + c] - found.mean[c];
      found.mean[c] += far * (n / all);
      found.variance[c] += blocks[at + channels + c] + far * far * (count * n / all);
    }
    count = all;
  }
  for (double& variance : found.variance) variance /= count;
  return found;
}

// What x is multiplied with and what is added then.
template <typename A>
struct Affine {
  std::vector<A> scale, shift;

  Affine(const Tensor& weight, const Tensor& bias, const std::vector<double>& mean,
         const std::vector<double>& inverse_std)
      : scale(values<A>(weight)), shift(values<A>(bias)) {
    for (size_t c = 0; c < scale.size(); ++c) {
      scale[c] = static_cast<A>(scale[c] * inverse_std[c]);
      shift[c] = static_cast<A>(shift[c] - mean[c] * scale[c]);
    }
  }
};

Tensor doubles(const std::vector<double>& from) {
  Tensor to = at::empty({static_cast<int64_t>(from.size())}, at::kDouble);
  std::copy(from.begin(), from.end(), to.mutable_data_ptr<double>());
  return to;
}

void move(const Tensor& running, const std::vector<double>& towards, double momentum) {
  Tensor to = running;
  to.lerp_(doubles(towards).to(running.scalar_type()), momentum);
}

class BatchNormRelu : public torch::autograd::Function<BatchNormRelu> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, const Tensor& running_mean, const Tensor& running_var,
                        double momentum, double eps) {
    const Size size(x);
    Tensor y = at::empty_like(x);
    if (is_fake(x)) {
      const Tensor statistic = at::empty({size.channels}, x.options().dtype(at::kDouble));
      ctx->save_for_backward({x, weight, bias, statistic, statistic});
      return y;
    }
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "batch_norm", [&] {
      using A = at::opmath_type<scalar_t>;
      Statistics found = statistics<scalar_t>(x);
      std::vector<double> inverse_std(found.variance), unbiased(found.variance);
      for (double& v : inverse_std) v = 1 / std::sqrt(v + eps);
      const double pixels = static_cast<double>(size.pixels);
      for (double& v : unbiased) v *= pixels / (pixels - 1);
      move(running_mean, found.mean, momentum);
      move(running_var, unbiased, momentum);
      const Affine<A> affine(weight, bias, found.mean, inverse_std);
      const scalar_t* from = x.const_data_ptr<scalar_t>();
      scalar_t* to = y.mutable_data_ptr<scalar_t>();
      at::parallel_for(0, size.pixels, 1024, [&](int64_t begin, int64_t end) {
        const int64_t at = begin * size.channels;
        cpu::run_fastest<NormRelu<scalar_t, A>>(from + at, to + at, end - begin, size.channels,
                                                affine.scale.data(), affine.shift.data());
      });
      ctx->save_for_backward({x, weight, bias, doubles(found.mean), doubles(inverse_std)});
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    VPD_CHECK(!at::GradMode::is_enabled(), "batch_norm_relu: second derivatives are not supported");
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    if (is_fake(x)) {
      variable_list empty(7);
      if (ctx->needs_input_grad(0)) empty[0] = at::empty_like(x);
      empty[1] = at::empty_like(weight);
      empty[2] = at::empty_like(bias);
      return empty;
    }
    const auto mean = values<double>(saved[3]), inverse_std = values<double>(saved[4]);
    const Size size(x);
    const size_t channels = static_cast<size_t>(size.channels);
    const Tensor grad = grads[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    variable_list result(7);
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "batch_norm", [&] {
      using A = at::opmath_type<scalar_t>;
      const Affine<A> affine(weight, bias, mean, inverse_std);
      const std::vector<A> center(mean.begin(), mean.end());
      const scalar_t *g = grad.const_data_ptr<scalar_t>(), *from = x.const_data_ptr<scalar_t>();
      const std::vector<A> blocks =
          by_block<A>(size.pixels, size.channels, [&](int64_t begin, int64_t end, A* rows) {
            const int64_t at = begin * size.channels;
            cpu::run_fastest<BlockGradients<scalar_t, A>>(
                g + at, from + at, end - begin, size.channels, center.data(), affine.scale.data(),
                affine.shift.data(), rows, rows + size.channels);
          });
      std::vector<double> sum(channels), product(channels);
      for (size_t at = 0; at < blocks.size(); at += 2 * channels) {
        for (size_t c = 0; c < channels; ++c) {
          sum[c] += blocks[at + c];
          product[c] += blocks[at + channels + c];
        }
      }
      if (ctx->needs_input_grad(0)) {
        const double pixels = static_cast<double>(size.pixels);
        std::vector<A> a(channels), b(channels);
        for (size_t c = 0; c < channels; ++c) {
          a[c] = static_cast<A>(sum[c] / pixels);
          b[c] = static_cast<A>(product[c] / pixels * inverse_std[c] * inverse_std[c]);
        }
        result[0] = at::empty_like(x);
        scalar_t* to = result[0].template mutable_data_ptr<scalar_t>();
        at::parallel_for(0, size.pixels, 1024, [&](int64_t begin, int64_t end) {
          const int64_t at = begin * size.channels;
          cpu::run_fastest<InputGradient<scalar_t, A>>(
              g + at, from + at, to + at, end - begin, size.channels, center.data(),
              affine.scale.data(), affine.shift.data(), a.data(), b.data());
        });
      }
      for (size_t c = 0; c < channels; ++c) product[c] *= inverse_std[c];
      result[1] = doubles(product).to(weight.scalar_type());
      result[2] = doubles(sum).to(bias.scalar_type());
    });
    return result;
  }
};

}  // namespace

Tensor batch_norm_relu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& running_mean, const Tensor& running_var, double momentum,
                       double eps) {
  const bool fused = (has_values(x) || is_fake(x)) && x.dim() == 4 && x.is_floating_point() &&
                     x.is_contiguous(at::MemoryFormat::ChannelsLast) &&
                     x.size(1) == weight.numel() && x.size(1) == running_mean.numel();
  if (fused) {
    return BatchNormRelu::apply(x, weight, bias, running_mean, running_var, momentum, eps);
  }
  return at::batch_norm(x, weight, bias, running_mean, running_var, /*training=*/true, momentum,
                        eps, /*cudnn_enabled=*/true)
      .relu_();
}

}  // namespace vpd::ops
