// GEGLU in one pass: reads x once and writes y once, where chunk, gelu and multiply read and write
// twice as much and keep gelu(b) for backward. Bound by memory: each thread moves 16 bytes at a
// time where the width allows it.
#include "common.cuh"
#include "geglu.h"

namespace vpd::ops::cuda {
namespace {

// Distribution function and density of the standard normal.
__device__ inline void normal(float x, float& distribution, float& density) {
  distribution = normcdff(x);
  density = 0.39894228f * expf(-0.5f * x * x);
}
__device__ inline void normal(double x, double& distribution, double& density) {
  distribution = normcdf(x);
  density = 0.39894228040143268 * exp(-0.5 * x * x);
}

template <typename T, int kCount>
__global__ void geglu(const T* __restrict__ x, T* __restrict__ y, int64_t rows, int64_t width) {
  using A = typename Accumulate<T>::type;
  using P = Pack<T, kCount>;
  const int64_t packs = width / kCount;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < rows * packs;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / packs, column = i % packs * kCount;
    const T* from = x + row * 2 * width + column;
    const P a = *reinterpret_cast<const P*>(from), b = *reinterpret_cast<const P*>(from + width);
    P out;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const A gate = load(b.values[j]);
      A distribution, density;
      normal(gate, distribution, density);
      store(out.values[j], load(a.values[j]) * (gate * distribution));
    }
    *reinterpret_cast<P*>(y + row * width + column) = out;
  }
}

// d/da = gelu(b); d/db = a (cdf(b) + b pdf(b))
template <typename T, int kCount>
__global__ void geglu_backward(const T* __restrict__ grad, const T* __restrict__ x,
                               T* __restrict__ grad_x, int64_t rows, int64_t width) {
  using A = typename Accumulate<T>::type;
  using P = Pack<T, kCount>;
  const int64_t packs = width / kCount;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < rows * packs;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / packs, column = i % packs * kCount;
    const T* from = x + row * 2 * width + column;
    const P a = *reinterpret_cast<const P*>(from), b = *reinterpret_cast<const P*>(from + width);
    const P g = *reinterpret_cast<const P*>(grad + row * width + column);
    P grad_a, grad_b;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const A gate = load(b.values[j]), up = load(g.values[j]);
      A distribution, density;
      normal(gate, distribution, density);
      store(grad_a.values[j], up * (gate * distribution));
      store(grad_b.values[j], up * load(a.values[j]) * (distribution + gate * density));
    }
    T* to = grad_x + row * 2 * width + column;
    *reinterpret_cast<P*>(to) = grad_a;
    *reinterpret_cast<P*>(to + width) = grad_b;
  }
}

unsigned blocks_for(int64_t work) {
  const int64_t blocks = (work + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 65536 ? blocks : 65536);
}

}  // namespace

cudaError_t launch_geglu(Type type, const void* x, void* y, int64_t rows, int64_t width,
                         cudaStream_t stream) {
  return dispatch(type, [&](auto example) {
    using T = decltype(example);
    constexpr int kCount = pack_size<T>();
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(y);
    if (width % kCount == 0) {
      geglu<T, kCount>
          <<<blocks_for(rows * width / kCount), kThreads, 0, stream>>>(from, to, rows, width);
    } else {
      geglu<T, 1><<<blocks_for(rows * width), kThreads, 0, stream>>>(from, to, rows, width);
    }
  });
}

cudaError_t launch_geglu_backward(Type type, const void* grad, const void* x, void* grad_x,
                                  int64_t rows, int64_t width, cudaStream_t stream) {
  return dispatch(type, [&](auto example) {
    using T = decltype(example);
    constexpr int kCount = pack_size<T>();
    const T *g = static_cast<const T*>(grad), *from = static_cast<const T*>(x);
    T* to = static_cast<T*>(grad_x);
    if (width % kCount == 0) {
      geglu_backward<T, kCount>
          <<<blocks_for(rows * width / kCount), kThreads, 0, stream>>>(g, from, to, rows, width);
    } else {
      geglu_backward<T, 1>
          <<<blocks_for(rows * width), kThreads, 0, stream>>>(g, from, to, rows, width);
    }
  });
}

}  // namespace vpd::ops::cuda
