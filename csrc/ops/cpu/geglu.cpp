#include "ops/geglu.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "ops/cpu/simd.h"

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

constexpr int64_t kGrain = 8192;  // elements worth a thread

template <typename T>
struct GegluRows {
  static VPD_INLINE void run(const T* x, T* y, int64_t rows, int64_t width) {
    using A = at::opmath_type<T>;
    for (int64_t row = 0; row < rows; ++row) {
      const T* __restrict a = x + row * 2 * width;
      const T* __restrict b = a + width;
      T* __restrict out = y + row * width;
      for (int64_t i = 0; i < width; ++i) {
        const A gate = load(b[i]);
        A distribution, density;
        normal(gate, distribution, density);
        store(out[i], load(a[i]) * (gate * distribution));
      }
    }
  }
};

// d/da = gelu(b); d/db = a (cdf(b) + b pdf(b))
template <typename T>
struct GegluBackwardRows {
  static VPD_INLINE void run(const T* grad, const T* x, T* grad_x, int64_t rows, int64_t width) {
    using A = at::opmath_type<T>;
    for (int64_t row = 0; row < rows; ++row) {
      const T* __restrict g = grad + row * width;
      const T* __restrict a = x + row * 2 * width;
      const T* __restrict b = a + width;
      T* __restrict grad_a = grad_x + row * 2 * width;
      T* __restrict grad_b = grad_a + width;
      for (int64_t i = 0; i < width; ++i) {
        const A gate = load(b[i]), up = load(g[i]);
        A distribution, density;
        normal(gate, distribution, density);
        store(grad_a[i], up * (gate * distribution));
        store(grad_b[i], up * load(a[i]) * (distribution + gate * density));
      }
    }
  }
};

Tensor geglu_cpu(const Tensor& x_) {
  check_geglu(x_);
  const int64_t width = x_.size(-1) / 2;
  c10::DimVector sizes(x_.sizes());
  sizes.back() = width;
  Tensor y = at::empty(sizes, x_.options());
  if (y.numel() == 0) {
    return y;
  }
  const Tensor x = x_.contiguous();
  const int64_t rows = y.numel() / width;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "geglu", [&] {
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    scalar_t* to = y.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows, (kGrain + width - 1) / width, [&](int64_t begin, int64_t end) {
      run_fastest<GegluRows<scalar_t>>(from + begin * 2 * width, to + begin * width, end - begin,
                                       width);
    });
  });
  return y;
}

Tensor geglu_backward_cpu(const Tensor& grad_, const Tensor& x_) {
  check_geglu_backward(grad_, x_);
  Tensor grad_x = at::empty(x_.sizes(), x_.options());
  if (grad_x.numel() == 0) {
    return grad_x;
  }
  const Tensor x = x_.contiguous(), grad = grad_.to(x_.scalar_type()).contiguous();
  const int64_t width = x.size(-1) / 2, rows = grad.numel() / width;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "geglu_backward", [&] {
    const scalar_t* g = grad.const_data_ptr<scalar_t>();
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    scalar_t* to = grad_x.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows, (kGrain + width - 1) / width, [&](int64_t begin, int64_t end) {
      run_fastest<GegluBackwardRows<scalar_t>>(g + begin * width, from + begin * 2 * width,
                                               to + begin * 2 * width, end - begin, width);
    });
  });
  return grad_x;
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) {
  m.impl("geglu", geglu_cpu);
  m.impl("geglu_backward", geglu_backward_cpu);
}

}  // namespace vpd::ops::cpu
