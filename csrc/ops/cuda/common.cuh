#pragma once
// What the kernels share: storage types, the accumulation type of each, and reductions over a
// block.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "types.h"

namespace vpd::ops::cuda {

inline constexpr int kThreads = 256;
inline constexpr int kWarp = 32;

template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

__device__ inline float load(float x) { return x; }
__device__ inline double load(double x) { return x; }
__device__ inline float load(__half x) { return __half2float(x); }
__device__ inline float load(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline void store(float& to, float x) { to = x; }
__device__ inline void store(double& to, double x) { to = x; }
__device__ inline void store(__half& to, float x) { to = __float2half_rn(x); }
__device__ inline void store(__nv_bfloat16& to, float x) { to = __float2bfloat16_rn(x); }

// kCount consecutive values read or written as one.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

// Values that fit a 16-byte access, where the row length allows it.
template <typename T>
constexpr int pack_size() {
  return 16 / static_cast<int>(sizeof(T));
}

// Calls launch with a value of the storage type.
template <typename Launch>
cudaError_t dispatch(Type type, const Launch& launch) {
  switch (type) {
    case Type::kFloat:
      launch(float{});
      break;
    case Type::kDouble:
      launch(double{});
      break;
    case Type::kHalf:
      launch(__half{});
      break;
    case Type::kBFloat16:
      launch(__nv_bfloat16{});
      break;
  }
  return cudaGetLastError();
}

// Sum over the block, in thread 0. Every thread must call it.
template <typename A>
__device__ A block_sum(A value) {
  __shared__ A partial[kThreads / kWarp];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_down_sync(0xFFFFFFFFu, value, offset);
  }
  __syncthreads();  // a second call may still be reading `partial`
  if (threadIdx.x % kWarp == 0) {
    partial[threadIdx.x / kWarp] = value;
  }
  __syncthreads();
  value = threadIdx.x < blockDim.x / kWarp ? partial[threadIdx.x] : A(0);
  if (threadIdx.x < kWarp) {
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      value += __shfl_down_sync(0xFFFFFFFFu, value, offset);
    }
  }
  return value;
}

}  // namespace vpd::ops::cuda
