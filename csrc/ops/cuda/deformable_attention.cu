// Deformable attention without sampled values in memory: grid_sample writes L P values for every
// one that remains, and reads them again. Forward: a thread sums up to 16 bytes of channels of one
// query and head. Backward: a warp takes a query and head, its lanes the channels, so that the
// gradients of locations and weights are sums over the warp.
#include "common.cuh"
#include "deformable_attention.h"

namespace vpd::ops::cuda {
namespace {

// The four pixels around a point, in the order of reading; those outside the level do not count.
template <typename A>
struct Corners {
  int64_t pixel;  // the upper left one, from the level's first
  bool valid[4];
  A right, down;  // how far behind it the point is, in [0, 1)

  // False for a point that no pixel of the level reaches, and one that is no number.
  __device__ bool place(const A* location, int64_t height, int64_t width) {
    const A x = location[0] * static_cast<A>(width) - A(0.5);
    const A y = location[1] * static_cast<A>(height) - A(0.5);
    if (!(x > A(-1) && y > A(-1) && x < static_cast<A>(width) && y < static_cast<A>(height))) {
      return false;
    }
    const A left = floor(x), top = floor(y);
    right = x - left;
    down = y - top;
    const int64_t column = static_cast<int64_t>(left), row = static_cast<int64_t>(top);
    pixel = row * width + column;
    const bool first = column >= 0, last = column + 1 < width;
    const bool upper = row >= 0, lower = row + 1 < height;
    valid[0] = upper && first;
    valid[1] = upper && last;
    valid[2] = lower && first;
    valid[3] = lower && last;
    return true;
  }
  __device__ int64_t at(int corner, int64_t width) const {
    return pixel + corner % 2 + corner / 2 * width;
  }
  __device__ A share(int corner) const {
    return (corner % 2 ? right : 1 - right) * (corner / 2 ? down : 1 - down);
  }
};

template <typename T, int kCount>
__global__ void forward(DeformableSizes sizes, const T* __restrict__ value,
                        const int64_t* __restrict__ shapes,
                        const typename Accumulate<T>::type* __restrict__ locations,
                        const typename Accumulate<T>::type* __restrict__ weights,
                        T* __restrict__ out) {
  using A = typename Accumulate<T>::type;
  using P = Pack<T, kCount>;
  const int64_t packs = sizes.width / kCount, pixel_stride = sizes.heads * sizes.width;
  const int64_t total = sizes.batch * sizes.queries * sizes.heads * packs;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / packs, column = i % packs * kCount;  // row: image, query, head
    const int64_t image = row / (sizes.heads * sizes.queries);
    const T* plane =
        value + image * sizes.pixels * pixel_stride + row % sizes.heads * sizes.width + column;
    int64_t sample = row * sizes.levels * sizes.points, first = 0;
    A sum[kCount] = {};
    for (int64_t level = 0; level < sizes.levels; ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      if (height <= 0 || width <= 0 || height * width > sizes.pixels - first) {
        break;
      }
      for (int64_t p = 0; p < sizes.points; ++p, ++sample) {
        Corners<A> corners;
        if (!corners.place(locations + 2 * sample, height, width)) {
          continue;
        }
        const A weight = weights[sample];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (!corners.valid[c]) {
            continue;
          }
          const A share = weight * corners.share(c);
          const P pixel =
              *reinterpret_cast<const P*>(plane + (first + corners.at(c, width)) * pixel_stride);
#pragma unroll
          for (int j = 0; j < kCount; ++j) {
            sum[j] += share * load(pixel.values[j]);
          }
        }
      }
      first += height * width;
    }
    P result;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      store(result.values[j], sum[j]);
    }
    *reinterpret_cast<P*>(out + row * sizes.width + column) = result;
  }
}

// Sum over the warp, in lane 0.
template <typename A>
__device__ A warp_sum(A value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_down_sync(0xFFFFFFFFu, value, offset);
  }
  return value;
}

template <typename T>
__global__ void backward(DeformableSizes sizes, const T* __restrict__ grad,
                         const T* __restrict__ value, const int64_t* __restrict__ shapes,
                         const typename Accumulate<T>::type* __restrict__ locations,
                         const typename Accumulate<T>::type* __restrict__ weights,
                         typename Accumulate<T>::type* __restrict__ grad_value,
                         typename Accumulate<T>::type* __restrict__ grad_locations,
                         typename Accumulate<T>::type* __restrict__ grad_weights) {
  using A = typename Accumulate<T>::type;
  constexpr int kWarps = kThreads / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t pixel_stride = sizes.heads * sizes.width;
  const int64_t rows = sizes.batch * sizes.queries * sizes.heads;
  for (int64_t row = blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarp; row < rows;
       row += int64_t{gridDim.x} * kWarps) {
    const T* up = grad + row * sizes.width;
    const int64_t image = row / (sizes.heads * sizes.queries);
    const int64_t plane = image * sizes.pixels * pixel_stride + row % sizes.heads * sizes.width;
    int64_t sample = row * sizes.levels * sizes.points, first = 0;
    for (int64_t level = 0; level < sizes.levels; ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      const bool fits = height > 0 && width > 0 && height * width <= sizes.pixels - first;
      for (int64_t p = 0; p < sizes.points; ++p, ++sample) {
        Corners<A> corners;
        A product[4] = {};
        const A weight = weights[sample];
        const bool inside = fits && corners.place(locations + 2 * sample, height, width);
        if (inside) {  // the same for the whole warp
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            if (!corners.valid[c]) {
              continue;
            }
            const int64_t at = plane + (first + corners.at(c, width)) * pixel_stride;
            const A share = weight * corners.share(c);
            for (int64_t d = lane; d < sizes.width; d += kWarp) {
              const A g = load(up[d]);
              product[c] += g * load(value[at + d]);
              atomicAdd(grad_value + at + d, share * g);
            }
          }
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            product[c] = warp_sum(product[c]);
          }
        }
        if (lane != 0) {
          continue;
        }
        A along_x = 0, along_y = 0, along_weight = 0;
        if (inside) {
          const A x = corners.right, y = corners.down;
          along_x = (1 - y) * (product[1] - product[0]) + y * (product[3] - product[2]);
          along_y = (1 - x) * (product[2] - product[0]) + x * (product[3] - product[1]);
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            along_weight += corners.share(c) * product[c];
          }
        }
        grad_locations[2 * sample] = weight * static_cast<A>(width) * along_x;
        grad_locations[2 * sample + 1] = weight * static_cast<A>(height) * along_y;
        grad_weights[sample] = along_weight;
      }
      first += fits ? height * width : sizes.pixels - first;
    }
  }
}

unsigned blocks_for(int64_t work, int64_t per_block) {
  const int64_t blocks = (work + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < 65536 ? blocks : 65536);
}

}  // namespace

cudaError_t launch_deformable_attention(Type type, DeformableSizes sizes, const void* value,
                                        const int64_t* shapes, const void* locations,
                                        const void* weights, void* out, cudaStream_t stream) {
  return dispatch(type, [&](auto example) {
    using T = decltype(example);
    using A = typename Accumulate<T>::type;
    constexpr int kCount = pack_size<T>();
    const T* from = static_cast<const T*>(value);
    const A *at = static_cast<const A*>(locations), *times = static_cast<const A*>(weights);
    T* to = static_cast<T*>(out);
    const int64_t values = sizes.batch * sizes.queries * sizes.heads * sizes.width;
    if (sizes.width % kCount == 0) {
      forward<T, kCount><<<blocks_for(values / kCount, kThreads), kThreads, 0, stream>>>(
          sizes, from, shapes, at, times, to);
    } else {
      forward<T, 1><<<blocks_for(values, kThreads), kThreads, 0, stream>>>(sizes, from, shapes, at,
                                                                           times, to);
    }
  });
}

cudaError_t launch_deformable_attention_backward(Type type, DeformableSizes sizes, const void* grad,
                                                 const void* value, const int64_t* shapes,
                                                 const void* locations, const void* weights,
                                                 void* grad_value, void* grad_locations,
                                                 void* grad_weights, cudaStream_t stream) {
  return dispatch(type, [&](auto example) {
    using T = decltype(example);
    using A = typename Accumulate<T>::type;
    const int64_t rows = sizes.batch * sizes.queries * sizes.heads;
    backward<T><<<blocks_for(rows, kThreads / kWarp), kThreads, 0, stream>>>(
        sizes, static_cast<const T*>(grad), static_cast<const T*>(value), shapes,
        static_cast<const A*>(locations), static_cast<const A*>(weights),
        static_cast<A*>(grad_value), static_cast<A*>(grad_locations),
        static_cast<A*>(grad_weights));
  });
}

}  // namespace vpd::ops::cuda
