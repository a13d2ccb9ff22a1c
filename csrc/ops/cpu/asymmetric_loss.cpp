// Asymmetric loss in one pass, and its gradient in another. Elements are taken tile by tile: a
// tile's logits and targets become float (or double) numbers in the first cache, so that one loop
// does for all storage types.
//
// Targets are 0 or 1, so y * a + (1 - y) * b picks a or b exactly, without a branch.
#include "ops/asymmetric_loss.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <numeric>
#include <type_traits>

#include "core/check.h"
#include "ops/cpu/simd.h"

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

constexpr int64_t kTile = 256;
// Elements worth a thread. They are summed up apart, so that sums do not depend on the threads.
constexpr int64_t kChunk = 32 * kTile;
constexpr double kTiny = 1e-30;     // keeps 0 / 0 away where the numerator is 0
constexpr double kSmallPowers = 8;  // exponents below it, if integer, are taken by squaring

// log x for normal positive x: x = 2^n (1 + f) with 1 + f in [sqrt 1/2, sqrt 2), and log(1 + f) =
// 2 artanh(s) = f - s (f - r), s = f / (2 + f), by the series of artanh, cut where it is 2e-9 of
// the whole.
VPD_INLINE float natural_log(float x) {
  constexpr uint32_t kRootHalf = 0x3F3504F3u;
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const int32_t n = static_cast<int32_t>(bits - kRootHalf) >> 23;
  const float f = std::bit_cast<float>(bits - (static_cast<uint32_t>(n) << 23)) - 1.f;
  const float s = f * reciprocal(2.f + f), z = s * s;
  float r = 0.222222222f;
  r = r * z + 0.285714286f;
  r = r * z + 0.4f;
  r = r * z + 0.666666667f;
  return static_cast<float>(n) * 0.693147181f + (f - s * (f - z * r));
}
VPD_INLINE double natural_log(double x) { return std::log(x); }

VPD_INLINE float power(float base, float exponent) {
  return exp(exponent * natural_log(base > FLT_MIN ? base : FLT_MIN));
}
VPD_INLINE double power(double base, double exponent) { return std::pow(base, exponent); }

// p = sigmoid(x) and 1 - p, which loses no digits near 0. Both are normal numbers.
VPD_INLINE void sigmoid(float x, float& p, float& rest) {
  const float e = exp(-x);
  p = reciprocal(1.f + e);
  rest = e * p;
}
VPD_INLINE void sigmoid(double x, double& p, double& rest) {
  const double e = std::exp(-std::min(std::max(x, -700.0), 700.0));
  p = 1 / (1 + e);
  rest = e * p;
}

template <typename A>
struct Settings {
  A clip, eps;
  // Of targets 0 and 1: the exponent, and its binary digits if it is small.
  A gamma[2], ones[2], twos[2], fours[2];
  bool small;
};

template <typename A>
Settings<A> settings_of(double gamma_neg, double gamma_pos, double clip, double eps) {
  Settings<A> s{};
  s.clip = static_cast<A>(clip);
  s.eps = std::max(static_cast<A>(eps), static_cast<A>(kTiny));
  s.small = true;
  for (const int i : {0, 1}) {
    const double gamma = i == 0 ? gamma_neg : gamma_pos;
    s.gamma[i] = static_cast<A>(gamma);
    s.small = s.small && gamma < kSmallPowers && gamma == std::floor(gamma);
    const int digits = s.small ? static_cast<int>(gamma) : 0;
    s.ones[i] = static_cast<A>(digits & 1);
    s.twos[i] = static_cast<A>(digits >> 1 & 1);
    s.fours[i] = static_cast<A>(digits >> 2 & 1);
  }
  return s;
}

// What a target y picks of two.
template <typename A>
VPD_INLINE A pick(A y, const A (&of)[2]) {
  return y * of[1] + (1 - y) * of[0];
}

// What loss and gradient are made of. u is what the log is taken of, w the focusing weight.
template <typename A>
struct Terms {
  A other;         // 1 - target
  A p, rest;       // sigmoid, 1 - sigmoid
  A q, unclipped;  // max(p - clip, 0), min(1 - p + clip, 1): they add up to 1
  A u, w;
};

template <typename A, bool kSmall>
VPD_INLINE Terms<A> terms_of(A x, A y, const Settings<A>& s) {
  Terms<A> t;
  t.other = 1 - y;
  sigmoid(x, t.p, t.rest);
  const A above = t.p - s.clip, below = t.rest + s.clip;
  t.q = above > 0 ? above : 0;
  t.unclipped = below < 1 ? below : 1;
  t.u = y * t.p + t.other * t.unclipped;
  const A base = y * t.rest + t.other * t.q;
  if constexpr (kSmall) {
    const A ones = pick(y, s.ones), twos = pick(y, s.twos), fours = pick(y, s.fours);
    const A square = base * base;
    t.w = (base * ones + (1 - ones)) * (square * twos + (1 - twos)) *
          (square * square * fours + (1 - fours));
  } else {
    t.w = power(base, pick(y, s.gamma));
  }
  return t;
}

template <typename A, bool kSmall>
struct LossTile {
  static VPD_INLINE void run(const A* __restrict x, const A* __restrict y, A* __restrict to,
                             int64_t n, const Settings<A> s) {
    for (int64_t i = 0; i < n; ++i) {
      const Terms<A> t = terms_of<A, kSmall>(x[i], y[i], s);
      const A loss = -t.w * natural_log(t.u > s.eps ? t.u : s.eps);
      to[i] = x[i] != x[i] ? x[i] : loss;
    }
  }
};

// -w (d log u + log u d log w), the second term with kFull; d log u is 0 where a clamp holds u.
template <typename A, bool kSmall, bool kFull>
struct GradientTile {
  static VPD_INLINE void run(const A* __restrict grad, const A* __restrict x, const A* __restrict y,
                             A* __restrict to, int64_t n, const Settings<A> s) {
    for (int64_t i = 0; i < n; ++i) {
      const Terms<A> t = terms_of<A, kSmall>(x[i], y[i], s);
      const A slope = t.p * t.rest, held = t.unclipped > s.eps ? t.unclipped : s.eps;
      const A inside = t.u >= s.eps ? 1 : 0, hit = t.p > s.clip ? 1 : 0;
      A d = (y[i] * t.rest - t.other * hit * slope * reciprocal(held)) * inside;
      if constexpr (kFull) {
        const A tiny = static_cast<A>(kTiny), q = t.q > tiny ? t.q : tiny;
        const A log = natural_log(t.u > s.eps ? t.u : s.eps);
        d += log * (t.other * s.gamma[0] * slope * reciprocal(q) - y[i] * s.gamma[1] * t.p);
      }
      const A found = -t.w * d * grad[i];
      to[i] = x[i] != x[i] ? x[i] : found;
    }
  }
};

template <typename A>
struct AddTile {
  static VPD_INLINE void run(const A* __restrict x, A* __restrict sums, int64_t n) {
    for (int64_t i = 0; i < n; ++i) sums[i] += x[i];
  }
};

template <typename T, typename A>
struct LoadTile {
  static VPD_INLINE void run(const T* __restrict from, A* __restrict to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = load(from[i]);
  }
};

template <typename T, typename A>
struct StoreTile {
  static VPD_INLINE void run(const A* __restrict from, T* __restrict to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) store(to[i], from[i]);
  }
};

// Zeros and ones; *strange becomes 1 where something is neither.
template <typename Y, typename A>
struct TargetTile {
  static VPD_INLINE void run(const Y* __restrict from, A* __restrict to, int64_t n, int* strange) {
    int found = 0;
    for (int64_t i = 0; i < n; ++i) {
      A y;
      if constexpr (std::is_integral_v<Y>) {
        y = static_cast<A>(from[i]);
      } else {
        y = static_cast<A>(load(from[i]));
      }
      to[i] = y != 0 ? 1 : 0;
      found |= static_cast<int>(y != 0) & static_cast<int>(y != 1);
    }
    *strange |= found;
  }
};

// The logits of a tile in the type to compute in: themselves, or copied to `buffer`.
template <typename T, typename A>
const A* tile_of(const T* from, A* buffer, int64_t n) {
  if constexpr (std::is_same_v<T, A>) {
    return from;
  } else {
    run_fastest<LoadTile<T, A>>(from, buffer, n);
    return buffer;
  }
}

// Targets begin ... begin + n - 1. Returns whether all of them are 0 or 1.
template <typename A>
bool load_targets(const Tensor& target, int64_t begin, A* to, int64_t n) {
  int strange = 0;
  AT_DISPATCH_FLOATING_TYPES_AND4(at::kBool, at::kByte, at::kBFloat16, at::kHalf,
                                  target.scalar_type(), "asymmetric_loss", [&] {
                                    run_fastest<TargetTile<scalar_t, A>>(
                                        target.const_data_ptr<scalar_t>() + begin, to, n, &strange);
                                  });
  return strange == 0;
}

// body(chunk, begin, end) for every chunk of `count` elements, by several threads.
template <typename Body>
void for_chunks(int64_t count, const Body& body) {
  at::parallel_for(0, (count + kChunk - 1) / kChunk, 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      body(chunk, chunk * kChunk, std::min(count, (chunk + 1) * kChunk));
    }
  });
}

[[noreturn]] void refuse(const Tensor& target) {
  const Tensor strange = target.masked_select(target.ne(0).logical_and(target.ne(1)));
  fail("asymmetric_loss: target must be 0 or 1, got ", strange[0].item<double>());
}

// Writes every element's loss to `values`, or returns their sum if that is null.
template <typename T>
double forward(const Tensor& logits, const Tensor& target,
               const Settings<at::opmath_type<T>>& settings, at::opmath_type<T>* values) {
  using A = at::opmath_type<T>;
  const T* x = logits.const_data_ptr<T>();
  const int64_t count = logits.numel();
  std::vector<double> partial(static_cast<size_t>((count + kChunk - 1) / kChunk));
  std::atomic<bool> fine = true;
  for_chunks(count, [&](int64_t chunk, int64_t begin, int64_t end) {
    A sums[kTile] = {}, buffer[kTile], y[kTile], losses[kTile];
    for (int64_t i = begin; i < end; i += kTile) {
      const int64_t n = std::min(kTile, end - i);
      const A* tile = tile_of(x + i, buffer, n);
      if (!load_targets(target, i, y, n)) fine = false;
      A* to = values ? values + i : losses;
      if (settings.small) {
        run_fastest<LossTile<A, true>>(tile, y, to, n, settings);
      } else {
        run_fastest<LossTile<A, false>>(tile, y, to, n, settings);
      }
      if (!values) run_fastest<AddTile<A>>(to, sums, n);
    }
    partial[static_cast<size_t>(chunk)] = std::accumulate(sums, sums + kTile, 0.0);
  });
  if (!fine) refuse(target);
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

template <typename A, bool kSmall>
void gradient_tile(const A* grad, const A* x, const A* y, A* to, int64_t n,
                   const Settings<A>& settings, bool full_grad) {
  if (full_grad) {
    run_fastest<GradientTile<A, kSmall, true>>(grad, x, y, to, n, settings);
  } else {
    run_fastest<GradientTile<A, kSmall, false>>(grad, x, y, to, n, settings);
  }
}

template <typename T>
void backward(const Tensor& grad, const Tensor& logits, const Tensor& target,
              const Settings<at::opmath_type<T>>& settings, bool full_grad, T* to) {
  using A = at::opmath_type<T>;
  const T* x = logits.const_data_ptr<T>();
  const A* up = grad.const_data_ptr<A>();
  const bool one_for_all = grad.dim() == 0;
  for_chunks(logits.numel(), [&](int64_t, int64_t begin, int64_t end) {
    A ups[kTile], buffer[kTile], y[kTile], found[kTile];
    if (one_for_all) std::fill(ups, ups + kTile, *up);
    for (int64_t i = begin; i < end; i += kTile) {
      const int64_t n = std::min(kTile, end - i);
      const A* tile = tile_of(x + i, buffer, n);
      load_targets(target, i, y, n);
      A* gradient = found;
      if constexpr (std::is_same_v<T, A>) gradient = to + i;
      const auto run = settings.small ? gradient_tile<A, true> : gradient_tile<A, false>;
      run(one_for_all ? ups : up + i, tile, y, gradient, n, settings, full_grad);
      if constexpr (!std::is_same_v<T, A>) run_fastest<StoreTile<T, A>>(gradient, to + i, n);
    }
  });
}

Tensor asymmetric_loss_cpu(const Tensor& logits_, const Tensor& target_, double gamma_neg,
                           double gamma_pos, double clip, double eps, bool /*full_grad*/,
                           bool reduce) {
  check_asymmetric_loss("asymmetric_loss", logits_, target_, gamma_neg, gamma_pos, clip, eps);
  const Tensor logits = logits_.contiguous(), target = target_.contiguous();
  const auto options = logits.options().dtype(at::toOpMathType(logits.scalar_type()));
  Tensor loss = reduce ? at::empty({}, options) : at::empty(logits.sizes(), options);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, logits.scalar_type(), "asymmetric_loss", [&] {
        using A = at::opmath_type<scalar_t>;
        const auto settings = settings_of<A>(gamma_neg, gamma_pos, clip, eps);
        A* to = loss.mutable_data_ptr<A>();
        const double sum = forward<scalar_t>(logits, target, settings, reduce ? nullptr : to);
        if (reduce) *to = static_cast<A>(sum);
      });
  return loss;
}

Tensor asymmetric_loss_backward_cpu(const Tensor& grad_, const Tensor& logits_,
                                    const Tensor& target_, double gamma_neg, double gamma_pos,
                                    double clip, double eps, bool full_grad) {
  check_asymmetric_loss_backward(grad_, logits_, target_, gamma_neg, gamma_pos, clip, eps);
  const Tensor logits = logits_.contiguous(), target = target_.contiguous();
  const Tensor grad = grad_.to(at::toOpMathType(logits.scalar_type())).contiguous();
  Tensor grad_logits = at::empty(logits.sizes(), logits.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, logits.scalar_type(), "asymmetric_loss_backward", [&] {
        using A = at::opmath_type<scalar_t>;
        backward<scalar_t>(grad, logits, target, settings_of<A>(gamma_neg, gamma_pos, clip, eps),
                           full_grad, grad_logits.mutable_data_ptr<scalar_t>());
      });
  return grad_logits;
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) {
  m.impl("asymmetric_loss", asymmetric_loss_cpu);
  m.impl("asymmetric_loss_backward", asymmetric_loss_backward_cpu);
}

}  // namespace vpd::ops::cpu
