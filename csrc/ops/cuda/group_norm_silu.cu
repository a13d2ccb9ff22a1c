// Group normalisation and SiLU: x is read twice and y written once, forward; backward reads grad
// and x twice and writes grad_x once, and computes z again instead of keeping it. All sums are
// taken in a fixed order, so results repeat.
//
// Forward: moments by (image, group) slice -> constants by (image, channel) -> y.
// Backward: sums by (image, channel) slice -> means by group, constants by channel -> grad_x;
// weight and bias by channel.
#include "common.cuh"
#include "group_norm_silu.h"

namespace vpd::ops::cuda {
namespace {

// Slices that the pixels of an image are cut into, so that small batches fill the device.
constexpr int kSlices = 16;

struct Layout {
  GroupNormShape shape;

  __host__ __device__ int64_t per_group() const { return shape.channels / shape.groups; }
  __device__ int64_t index(int64_t image, int64_t channel, int64_t pixel) const {
    return shape.channels_last ? (image * shape.pixels + pixel) * shape.channels + channel
                               : (image * shape.channels + channel) * shape.pixels + pixel;
  }
  __device__ int64_t slice_begin(int64_t slice) const { return shape.pixels * slice / kSlices; }
};

// count, mean and summed squares about the mean of some values; Chan, Golub & LeVeque's rule joins
// two.
template <typename A>
struct Moments {
  A count, mean, square;

  __device__ void join(const Moments& other) {
    const A total = count + other.count;
    if (total == A(0)) {
      return;
    }
    const A difference = other.mean - mean, share = other.count / total;
    mean += difference * share;
    square += other.square + difference * difference * count * share;
    count = total;
  }
};

// Scratch memory, in values of A.
template <typename A>
struct Scratch {
  Moments<A>* moments;                          // [batch, groups, kSlices]
  A *centre, *scale, *offset, *first, *second;  // [batch, channels] each
  A *sums, *products;                           // [kSlices, batch, channels] each

  __host__ __device__ static int64_t size(const GroupNormShape& s) {
    return 3 * s.batch * s.groups * kSlices + (5 + 2 * kSlices) * s.batch * s.channels;
  }
  Scratch(void* memory, const GroupNormShape& s) {
    A* next = static_cast<A*>(memory);
    const auto take = [&](int64_t count) {
      A* taken = next;
      next += count;
      return taken;
    };
    const int64_t channels = s.batch * s.channels;
    moments = reinterpret_cast<Moments<A>*>(take(3 * s.batch * s.groups * kSlices));
    centre = take(channels);
    scale = take(channels);
    offset = take(channels);
    first = take(channels);
    second = take(channels);
    sums = take(kSlices * channels);
    products = take(kSlices * channels);
  }
};

// One block: one slice of one group. Each thread sums about the first value it sees, which keeps
// inputs far from zero exact; threads are joined in a fixed tree.
template <typename T, typename A>
__global__ void group_moments(Layout layout, const T* __restrict__ x, Moments<A>* moments) {
  const GroupNormShape& s = layout.shape;
  const int64_t image = blockIdx.x / s.groups, group = blockIdx.x % s.groups;
  const int64_t begin = layout.slice_begin(blockIdx.y), end = layout.slice_begin(blockIdx.y + 1);
  // An image holds fewer than 2^31 values (the caller checks): 32-bit division is several times
  // faster.
  const uint32_t channels = layout.per_group(), pixels = end - begin;
  A shift = 0, sum = 0, square = 0;
  uint32_t count = 0;
  for (uint32_t i = threadIdx.x; i < channels * pixels; i += kThreads) {
    const uint32_t c = s.channels_last ? i % channels : i / pixels;
    const uint32_t p = s.channels_last ? i / channels : i % pixels;
    const A value = load(x[layout.index(image, group * channels + c, begin + p)]);
    if (count == 0) {
      shift = value;
    }
    const A d = value - shift;
    sum += d;
    square += d * d;
    ++count;
  }
  const A n = static_cast<A>(count);
  __shared__ Moments<A> shared[kThreads];
  shared[threadIdx.x] = count == 0 ? Moments<A>{A(0), A(0), A(0)}
                                   : Moments<A>{n, shift + sum / n, square - sum * sum / n};
  for (int stride = kThreads / 2; stride > 0; stride /= 2) {
    __syncthreads();
    if (threadIdx.x < stride) {
      shared[threadIdx.x].join(shared[threadIdx.x + stride]);
    }
  }
  if (threadIdx.x == 0) {
    moments[blockIdx.x * kSlices + blockIdx.y] = shared[0];
  }
}

// One thread: one channel of one image. Writes z = (x - centre) * scale + offset; offset makes up
// for the rounding of centre.
template <typename A>
__global__ void forward_constants(Layout layout, const Moments<A>* moments,
                                  const A* __restrict__ weight, const A* __restrict__ bias,
                                  double eps, Scratch<A> to, A* mean, A* rstd) {
  const GroupNormShape& s = layout.shape;
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= s.batch * s.channels) {
    return;
  }
  const int64_t c = i % s.channels, group = i / s.channels * s.groups + c / layout.per_group();
  Moments<double> all{0, 0, 0};
  for (int slice = 0; slice < kSlices; ++slice) {
    const Moments<A> part = moments[group * kSlices + slice];
    all.join({part.count, part.mean, part.square});
  }
  const double r = rsqrt(fmax(all.square, 0.0) / all.count + eps);
  const A centre = static_cast<A>(all.mean);
  to.centre[i] = centre;
  to.scale[i] = static_cast<A>(r * weight[c]);
  to.offset[i] = static_cast<A>(bias[c] - (all.mean - centre) * r * weight[c]);
  if (c % layout.per_group() == 0) {
    mean[group] = centre;
    rstd[group] = static_cast<A>(r);
  }
}

template <typename A>
__global__ void backward_constants(Layout layout, const A* __restrict__ weight,
                                   const A* __restrict__ bias, const A* __restrict__ mean,
                                   const A* __restrict__ rstd, Scratch<A> to) {
  const GroupNormShape& s = layout.shape;
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= s.batch * s.channels) {
    return;
  }
  const int64_t c = i % s.channels, group = i / s.channels * s.groups + c / layout.per_group();
  to.centre[i] = mean[group];
  to.scale[i] = rstd[group] * weight[c];
  to.offset[i] = bias[c];
}

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }

template <typename A>
__device__ A sigmoid(A x) {
  return A(1) / (A(1) + exponential(-x));
}

// d silu(z) / dz = s (1 + z (1 - s)), s = sigmoid(z)
template <bool kSilu, typename A>
__device__ A through_silu(A grad, A z) {
  if constexpr (kSilu) {
    const A s = sigmoid(z);
    return grad * (s * (A(1) + z * (A(1) - s)));
  } else {
    return grad;
  }
}

// Where the constants of value i, counted within one image, are.
__device__ inline uint32_t channel_of(const Layout& layout, uint32_t i) {
  return layout.shape.channels_last ? i % static_cast<uint32_t>(layout.shape.channels)
                                    : i / static_cast<uint32_t>(layout.shape.pixels);
}

// One thread: kCount values side by side (`blocks` blocks to an image), in one channel (contiguous)
// or one pixel (channels_last).
template <typename T, typename A, int kCount, bool kSilu>
__global__ void normalise(Layout layout, unsigned blocks, const T* __restrict__ x,
                          Scratch<A> constants, T* __restrict__ y) {
  using P = Pack<T, kCount>;
  const GroupNormShape& s = layout.shape;
  const int64_t size = s.channels * s.pixels, image = blockIdx.x / blocks;
  const int step = s.channels_last ? 1 : 0;
  for (int64_t i = (blockIdx.x % blocks * int64_t{kThreads} + threadIdx.x) * kCount; i < size;
       i += int64_t{blocks} * kThreads * kCount) {
    const int64_t c = image * s.channels + channel_of(layout, static_cast<uint32_t>(i));
    const P from = *reinterpret_cast<const P*>(x + image * size + i);
    P to;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const int64_t k = c + j * step;
      const A z =
          (load(from.values[j]) - constants.centre[k]) * constants.scale[k] + constants.offset[k];
      store(to.values[j], kSilu ? z * sigmoid(z) : z);
    }
    *reinterpret_cast<P*>(y + image * size + i) = to;
  }
}

// One block: one slice of one image, and one channel (contiguous) or 32 (channels_last, so that a
// warp reads whole lines). Sums of dz and dz (x - mean).
template <typename T, typename A, bool kSilu>
__global__ void channel_sums(Layout layout, const T* __restrict__ grad, const T* __restrict__ x,
                             Scratch<A> scratch) {
  const GroupNormShape& s = layout.shape;
  const int64_t columns = s.channels_last ? (s.channels + kWarp - 1) / kWarp : s.channels;
  const int64_t image = blockIdx.x / columns, column = blockIdx.x % columns, slice = blockIdx.y;
  const int64_t begin = layout.slice_begin(slice), end = layout.slice_begin(slice + 1);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t channel = s.channels_last ? column * kWarp + lane : column;
  const int64_t start = begin + (s.channels_last ? warp : threadIdx.x);
  const int64_t stride = s.channels_last ? kThreads / kWarp : kThreads;
  A sum = 0, product = 0;
  if (channel < s.channels) {
    const int64_t k = image * s.channels + channel;
    const A centre = scratch.centre[k], scale = scratch.scale[k], offset = scratch.offset[k];
    for (int64_t p = start; p < end; p += stride) {
      const int64_t i = layout.index(image, channel, p);
      const A centred = load(x[i]) - centre;
      const A dz = through_silu<kSilu>(A(load(grad[i])), centred * scale + offset);
      sum += dz;
      product += dz * centred;
    }
  }
  const int64_t to = (slice * s.batch + image) * s.channels + channel;
  if (s.channels_last) {
    __shared__ A shared[2][kThreads];
    shared[0][threadIdx.x] = sum;
    shared[1][threadIdx.x] = product;
    __syncthreads();
    if (warp == 0 && channel < s.channels) {
      for (int w = 1; w < kThreads / kWarp; ++w) {
        sum += shared[0][w * kWarp + lane];
        product += shared[1][w * kWarp + lane];
      }
      scratch.sums[to] = sum;
      scratch.products[to] = product;
    }
  } else {
    sum = block_sum(sum);
    product = block_sum(product);
    if (threadIdx.x == 0) {
      scratch.sums[to] = sum;
      scratch.products[to] = product;
    }
  }
}

// One block: one group of one image. Joins the slices (the result stays in slice 0) and writes what
// the gradient of x subtracts: grad_x = dz scale - first - (x - mean) second.
template <typename A>
__global__ void group_means(Layout layout, const A* __restrict__ weight, const A* __restrict__ rstd,
                            Scratch<A> scratch) {
  const GroupNormShape& s = layout.shape;
  const int64_t image = blockIdx.x / s.groups, group = blockIdx.x % s.groups;
  const int64_t channels = layout.per_group(), planes = s.batch * s.channels;
  A total = 0, total_product = 0;
  for (int64_t i = threadIdx.x; i < channels; i += kThreads) {
    const int64_t c = group * channels + i, k = image * s.channels + c;
    A sum = 0, product = 0;
    for (int slice = 0; slice < kSlices; ++slice) {
      sum += scratch.sums[slice * planes + k];
      product += scratch.products[slice * planes + k];
    }
    scratch.sums[k] = sum;
    scratch.products[k] = product;
    total += sum * weight[c];
    total_product += product * weight[c];
  }
  total = block_sum(total);
  total_product = block_sum(total_product);
  __shared__ A first, second;
  if (threadIdx.x == 0) {
    const A r = rstd[blockIdx.x], count = static_cast<A>(channels * s.pixels);
    first = r * total / count;
    second = r * r * r * total_product / count;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < channels; i += kThreads) {
    const int64_t k = image * s.channels + group * channels + i;
    scratch.first[k] = first;
    scratch.second[k] = second;
  }
}

template <typename T, typename A, int kCount, bool kSilu>
__global__ void input_gradient(Layout layout, unsigned blocks, const T* __restrict__ grad,
                               const T* __restrict__ x, Scratch<A> constants,
                               T* __restrict__ grad_x) {
  using P = Pack<T, kCount>;
  const GroupNormShape& s = layout.shape;
  const int64_t size = s.channels * s.pixels, image = blockIdx.x / blocks;
  const int step = s.channels_last ? 1 : 0;
  for (int64_t i = (blockIdx.x % blocks * int64_t{kThreads} + threadIdx.x) * kCount; i < size;
       i += int64_t{blocks} * kThreads * kCount) {
    const int64_t c = image * s.channels + channel_of(layout, static_cast<uint32_t>(i));
    const P from = *reinterpret_cast<const P*>(x + image * size + i);
    const P up = *reinterpret_cast<const P*>(grad + image * size + i);
    P to;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const int64_t k = c + j * step;
      const A scale = constants.scale[k];
      const A centred = load(from.values[j]) - constants.centre[k];
      const A dz =
          through_silu<kSilu>(A(load(up.values[j])), centred * scale + constants.offset[k]);
      store(to.values[j], dz * scale - constants.first[k] - centred * constants.second[k]);
    }
    *reinterpret_cast<P*>(grad_x + image * size + i) = to;
  }
}

// One thread: one channel, over the batch.
template <typename A>
__global__ void affine_gradient(Layout layout, const A* __restrict__ rstd, Scratch<A> scratch,
                                A* grad_weight, A* grad_bias) {
  const GroupNormShape& s = layout.shape;
  const int64_t c = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (c >= s.channels) {
    return;
  }
  A weight = 0, bias = 0;
  for (int64_t image = 0; image < s.batch; ++image) {
    const int64_t k = image * s.channels + c;
    bias += scratch.sums[k];
    weight += scratch.products[k] * rstd[image * s.groups + c / layout.per_group()];
  }
  if (grad_weight != nullptr) {
    grad_weight[c] = weight;
  }
  if (grad_bias != nullptr) {
    grad_bias[c] = bias;
  }
}

unsigned blocks_for(int64_t work) {
  return static_cast<unsigned>((work + kThreads - 1) / kThreads);
}

// Whether a whole pack of values always shares a row of the layout.
template <typename T>
bool packs(const GroupNormShape& s) {
  return (s.channels_last ? s.channels : s.pixels) % pack_size<T>() == 0;
}

unsigned blocks_per_image(const GroupNormShape& s, int count) {
  const int64_t blocks = (s.channels * s.pixels / count + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 4096 ? blocks : 4096);
}

// A bool that is part of a type: with_flag(value, launch) calls launch(Flag<value>).
template <bool kValue>
struct Flag {
  static constexpr bool value = kValue;
};

template <typename Launch>
void with_flag(bool flag, const Launch& launch) {
  if (flag) {
    launch(Flag<true>{});
  } else {
    launch(Flag<false>{});
  }
}

}  // namespace

size_t group_norm_silu_scratch(Type type, const GroupNormShape& shape) {
  return type == Type::kDouble ? Scratch<double>::size(shape) * sizeof(double)
                               : Scratch<float>::size(shape) * sizeof(float);
}

cudaError_t launch_group_norm_silu(const GroupNormForward& call, cudaStream_t stream) {
  return dispatch(call.type, [&](auto example) {
    using T = decltype(example);
    using A = typename Accumulate<T>::type;
    const Layout layout{call.shape};
    const GroupNormShape& s = call.shape;
    const Scratch<A> scratch(call.scratch, s);
    const T* x = static_cast<const T*>(call.x);
    T* y = static_cast<T*>(call.y);
    const dim3 slices(static_cast<unsigned>(s.batch * s.groups), kSlices);
    group_moments<T, A><<<slices, kThreads, 0, stream>>>(layout, x, scratch.moments);
    forward_constants<A><<<blocks_for(s.batch * s.channels), kThreads, 0, stream>>>(
        layout, scratch.moments, static_cast<const A*>(call.weight),
        static_cast<const A*>(call.bias), call.eps, scratch, static_cast<A*>(call.mean),
        static_cast<A*>(call.rstd));
    with_flag(packs<T>(s), [&](auto packed) {
      constexpr int kCount = decltype(packed)::value ? pack_size<T>() : 1;
      with_flag(call.silu, [&](auto silu) {
        const unsigned blocks = blocks_per_image(s, kCount);
        normalise<T, A, kCount, decltype(silu)::value>
            <<<static_cast<unsigned>(s.batch) * blocks, kThreads, 0, stream>>>(layout, blocks, x,
                                                                               scratch, y);
      });
    });
  });
}

cudaError_t launch_group_norm_silu_backward(const GroupNormBackward& call, cudaStream_t stream) {
  return dispatch(call.type, [&](auto example) {
    using T = decltype(example);
    using A = typename Accumulate<T>::type;
    const Layout layout{call.shape};
    const GroupNormShape& s = call.shape;
    const Scratch<A> scratch(call.scratch, s);
    const T *grad = static_cast<const T*>(call.grad), *x = static_cast<const T*>(call.x);
    const A *weight = static_cast<const A*>(call.weight), *rstd = static_cast<const A*>(call.rstd);
    T* grad_x = static_cast<T*>(call.grad_x);
    backward_constants<A><<<blocks_for(s.batch * s.channels), kThreads, 0, stream>>>(
        layout, weight, static_cast<const A*>(call.bias), static_cast<const A*>(call.mean), rstd,
        scratch);
    const int64_t columns = s.channels_last ? (s.channels + kWarp - 1) / kWarp : s.channels;
    const dim3 slices(static_cast<unsigned>(s.batch * columns), kSlices);
    with_flag(call.silu, [&](auto silu) {
      channel_sums<T, A, decltype(silu)::value>
          <<<slices, kThreads, 0, stream>>>(layout, grad, x, scratch);
    });
    group_means<A><<<static_cast<unsigned>(s.batch * s.groups), kThreads, 0, stream>>>(
        layout, weight, rstd, scratch);
    if (grad_x != nullptr) {
      with_flag(packs<T>(s), [&](auto packed) {
        constexpr int kCount = decltype(packed)::value ? pack_size<T>() : 1;
        with_flag(call.silu, [&](auto silu) {
          const unsigned blocks = blocks_per_image(s, kCount);
          input_gradient<T, A, kCount, decltype(silu)::value>
              <<<static_cast<unsigned>(s.batch) * blocks, kThreads, 0, stream>>>(
                  layout, blocks, grad, x, scratch, grad_x);
        });
      });
    }
    if (call.grad_weight != nullptr || call.grad_bias != nullptr) {
      affine_gradient<A><<<blocks_for(s.channels), kThreads, 0, stream>>>(
          layout, rstd, scratch, static_cast<A*>(call.grad_weight),
          static_cast<A*>(call.grad_bias));
    }
  });
}

}  // namespace vpd::ops::cuda
