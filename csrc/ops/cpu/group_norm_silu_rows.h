#pragma once
// Inner loops of group normalisation over a block of `rows` x `width` values, rows `stride` apart.
// The constants of a channel go by column where channels lie side by side (channels_last: columns
// are channels, rows are pixels) and by row where pixels do (kByRow; contiguous: rows are channels,
// columns are pixels).
#include "ops/cpu/simd.h"

namespace vpd::ops::cpu {

// z = (x - centre) * scale + offset; scale holds weight / standard deviation. About the mean, so
// that inputs far from zero lose nothing.
template <typename A>
struct Channels {
  const A* centre;
  const A* scale;
  const A* offset;
};

// The sum of kLanes values, halved again and again: a chain of additions would cost more than what
// it adds up.
template <int64_t kLanes, typename A>
VPD_INLINE A add_lanes(A* values) {
  if constexpr (kLanes == 1) {
    return values[0];
  } else {
    for (int64_t i = 0; i < kLanes / 2; ++i) {
      values[i] += values[i + kLanes / 2];
    }
    return add_lanes<kLanes / 2>(values);
  }
}

// sum += x - shift and square += (x - shift)^2, by column; four rows at a time to save traffic to
// the sums.
template <typename T, typename A>
struct MomentRows {
  static VPD_INLINE void run(const T* x, int64_t rows, int64_t width, int64_t stride,
                             const A* __restrict shift, A* __restrict sum, A* __restrict square) {
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) {
      const T* __restrict x0 = x + row * stride;
      const T* __restrict x1 = x0 + stride;
      const T* __restrict x2 = x1 + stride;
      const T* __restrict x3 = x2 + stride;
      for (int64_t c = 0; c < width; ++c) {
        const A d0 = load(x0[c]) - shift[c], d1 = load(x1[c]) - shift[c];
        const A d2 = load(x2[c]) - shift[c], d3 = load(x3[c]) - shift[c];
        sum[c] += (d0 + d1) + (d2 + d3);
        square[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
      }
    }
    for (; row < rows; ++row) {
      const T* __restrict x0 = x + row * stride;
      for (int64_t c = 0; c < width; ++c) {
        const A d = load(x0[c]) - shift[c];
        sum[c] += d;
        square[c] += d * d;
      }
    }
  }
};

// y = z, or silu(z)
template <typename T, typename A, bool kByRow, bool kSilu>
struct NormaliseRows {
  static VPD_INLINE void run(const T* x, T* y, int64_t rows, int64_t width, int64_t stride,
                             Channels<A> channels) {
    const A* __restrict centre = channels.centre;
    const A* __restrict scale = channels.scale;
    const A* __restrict offset = channels.offset;
    for (int64_t row = 0; row < rows; ++row) {
      const T* __restrict from = x + row * stride;
      T* __restrict to = y + row * stride;
      for (int64_t column = 0; column < width; ++column) {
        const int64_t c = kByRow ? row : column;
        const A z = (load(from[column]) - centre[c]) * scale[c] + offset[c];
        store(to[column], kSilu ? z * sigmoid(z) : z);
      }
    }
  }
};

// Gradient at z, given that at y. d silu(z) / dz = s (1 + z (1 - s)), s = sigmoid(z)
template <bool kSilu, typename A>
VPD_INLINE A through_silu(A grad, A z) {
  if constexpr (kSilu) {
    const A s = sigmoid(z);
    return grad * (s * (A(1) + z * (A(1) - s)));
  } else {
    return grad;
  }
}

// sum += dz and product += dz (x - centre), by column.
template <typename T, typename A, bool kSilu>
struct GradientSumsByColumn {
  static VPD_INLINE void run(const T* grad, const T* x, int64_t rows, int64_t width, int64_t stride,
                             Channels<A> channels, A* __restrict sum, A* __restrict product) {
    const A* __restrict centre = channels.centre;
    const A* __restrict scale = channels.scale;
    const A* __restrict offset = channels.offset;
    for (int64_t row = 0; row < rows; ++row) {
      const T* __restrict g = grad + row * stride;
      const T* __restrict from = x + row * stride;
      for (int64_t c = 0; c < width; ++c) {
        const A centred = load(from[c]) - centre[c];
        const A dz = through_silu<kSilu>(A(load(g[c])), centred * scale[c] + offset[c]);
        sum[c] += dz;
        product[c] += dz * centred;
      }
    }
  }
};

// The same by row, into double: in A over stretches of kStretch columns, in lanes that map to one
// vector.
template <typename T, typename A, bool kSilu>
struct GradientSumsByRow {
  static constexpr int64_t kLanes = 64 / sizeof(T), kStretch = 4096;

  static VPD_INLINE void run(const T* grad, const T* x, int64_t rows, int64_t width, int64_t stride,
                             Channels<A> channels, double* sum, double* product) {
    for (int64_t row = 0; row < rows; ++row) {
      const A centre = channels.centre[row], scale = channels.scale[row];
      const A offset = channels.offset[row];
      const T* __restrict g = grad + row * stride;
      const T* __restrict from = x + row * stride;
      for (int64_t begin = 0; begin < width; begin += kStretch) {
        const int64_t end = begin + kStretch < width ? begin + kStretch : width;
        A sums[kLanes] = {}, products[kLanes] = {};
        int64_t c = begin;
        for (; c + kLanes <= end; c += kLanes) {
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            const A centred = load(from[c + lane]) - centre;
            const A dz = through_silu<kSilu>(A(load(g[c + lane])), centred * scale + offset);
            sums[lane] += dz;
            products[lane] += dz * centred;
          }
        }
        for (; c < end; ++c) {
          const A centred = load(from[c]) - centre;
          const A dz = through_silu<kSilu>(A(load(g[c])), centred * scale + offset);
          sums[0] += dz;
          products[0] += dz * centred;
        }
        sum[row] += add_lanes<kLanes>(sums);
        product[row] += add_lanes<kLanes>(products);
      }
    }
  }
};

// grad_x = dz scale - first - (x - centre) second
template <typename T, typename A, bool kByRow, bool kSilu>
struct GradientRows {
  static VPD_INLINE void run(const T* grad, const T* x, T* grad_x, int64_t rows, int64_t width,
                             int64_t stride, Channels<A> channels, const A* __restrict first,
                             const A* __restrict second) {
    const A* __restrict centre = channels.centre;
    const A* __restrict scale = channels.scale;
    const A* __restrict offset = channels.offset;
    for (int64_t row = 0; row < rows; ++row) {
      const T* __restrict g = grad + row * stride;
      const T* __restrict from = x + row * stride;
      T* __restrict to = grad_x + row * stride;
      for (int64_t column = 0; column < width; ++column) {
        const int64_t c = kByRow ? row : column;
        const A centred = load(from[column]) - centre[c];
        const A dz = through_silu<kSilu>(A(load(g[column])), centred * scale[c] + offset[c]);
        store(to[column], dz * scale[c] - first[c] - centred * second[c]);
      }
    }
  }
};

}  // namespace vpd::ops::cpu
