#pragma once
// What the forward and the backward kernel of cross-attention share. Both walk over blocks of
// queries of one image and, inside, over the heads; the probabilities of one block and one head are
// all that is held. Tokens that the mask leaves out are dropped when keys and values are packed, so
// they cost nothing.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <vector>

#include "ops/cpu/active_tokens.h"
#include "ops/cpu/matmul.h"

namespace vpd::ops::cpu {

inline constexpr int64_t kBlock = 32;  // queries of a block

struct AttentionShape {
  int64_t batch, queries, tokens, heads, width;
  int64_t blocks() const { return (queries + kBlock - 1) / kBlock; }
};

// A tensor [batch, rows, heads * width] whose last stride is 1.
template <typename T>
struct Rows {
  T* data;
  int64_t image_stride, row_stride;

  T* at(int64_t image, int64_t row, int64_t column) const {
    return data + image * image_stride + row * row_stride + column;
  }
};

inline at::Tensor with_dense_rows(const at::Tensor& t) {
  return t.stride(2) == 1 ? t : t.contiguous();
}

template <typename T>
Rows<const T> rows_of(const at::Tensor& t) {
  return {t.const_data_ptr<T>(), t.stride(0), t.stride(1)};
}

// Keys or values of every head as [batch, heads, tokens, padded width] or, transposed, [batch,
// heads, width, padded tokens]; padding is zero.
template <typename A>
struct Packed {
  Buffer<A> data;
  int64_t heads, size, stride;  // of one head: size, and of one of its rows: stride

  const A* head(int64_t image, int64_t h) const { return data.get() + (image * heads + h) * size; }
};

// One head of pack(): `rows` are the places of the active tokens' values. Transposed, a stretch of
// tokens at a time so that stores fill cache lines.
template <typename A, typename T, bool kTransposed>
struct PackHead {
  static constexpr int64_t kTokens = 16;

  static VPD_INLINE void run(const T* const* rows, int64_t count, int64_t width, A* __restrict to,
                             int64_t stride) {
    if constexpr (kTransposed) {
      for (int64_t first = 0; first < count; first += kTokens) {
        const int64_t tokens = count - first < kTokens ? count - first : kTokens;
        for (int64_t d = 0; d < width; ++d) {
          for (int64_t n = 0; n < tokens; ++n) {
            to[d * stride + first + n] = load(rows[first + n][d]);
          }
        }
      }
    } else {
      for (int64_t n = 0; n < count; ++n) {
        const T* __restrict row = rows[n];
        for (int64_t d = 0; d < width; ++d) {
          to[n * stride + d] = load(row[d]);
        }
      }
    }
  }
};

template <typename A, bool kTransposed, typename T>
Packed<A> pack(const AttentionShape& shape, const ActiveTokens& active, Rows<const T> from) {
  Packed<A> to;
  to.heads = shape.heads;
  to.stride = padded<A>(kTransposed ? shape.tokens : shape.width);
  to.size = (kTransposed ? shape.width : shape.tokens) * to.stride;
  to.data = Buffer<A>(shape.batch * shape.heads * to.size);
  at::parallel_for(0, shape.batch * shape.heads, 4, [&](int64_t begin, int64_t end) {
    std::vector<const T*> rows(shape.tokens);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / shape.heads, h = task % shape.heads;
      for (int64_t n = 0; n < active.count[image]; ++n) {
        rows[n] = from.at(image, active.of(image)[n], h * shape.width);
      }
      run_fastest<PackHead<A, T, kTransposed>>(static_cast<const T* const*>(rows.data()),
                                               active.count[image], shape.width,
                                               to.data.get() + task * to.size, to.stride);
    }
  });
  return to;
}

// rows of `from` times `factor` -> to [rows, stride], zero beyond the width
template <typename A, typename T>
VPD_INLINE void load_rows(const T* from, int64_t from_stride, int64_t rows, int64_t width, A factor,
                          A* __restrict to, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* __restrict row = from + r * from_stride;
    for (int64_t d = 0; d < width; ++d) {
      to[r * stride + d] = load(row[d]) * factor;
    }
    for (int64_t d = width; d < stride; ++d) {
      to[r * stride + d] = 0;
    }
  }
}

template <typename A, typename T>
VPD_INLINE void store_rows(const A* __restrict from, int64_t stride, int64_t rows, int64_t width,
                           A factor, T* to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    T* __restrict row = to + r * to_stride;
    for (int64_t d = 0; d < width; ++d) {
      store(row[d], from[r * stride + d] * factor);
    }
  }
}

// Scores [rows, stride] -> probabilities over the first `count` columns, next to nothing beyond.
// Not a number stays so.
template <typename A, int kBytes>
VPD_INLINE void softmax_rows(A* scores, int64_t rows, int64_t count, int64_t stride) {
  using V = typename Vector<A, kBytes>::type;
  constexpr int64_t kLanes = Vector<A, kBytes>::kLanes;
  const int64_t width = (count + kLanes - 1) / kLanes * kLanes;
  // Added to the last vector of a row: takes the padding out. A whole vector, since a wide load
  // that follows narrow stores waits for them.
  A outside[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    outside[lane] = width - kLanes + lane < count ? A(0) : A(-1e30);
  }
  for (int64_t r = 0; r < rows; ++r) {
    A* __restrict row = scores + r * stride;
    *reinterpret_cast<V*>(row + width - kLanes) += *reinterpret_cast<const V*>(outside);
    V highest = *reinterpret_cast<const V*>(row);
    for (int64_t c = kLanes; c < width; c += kLanes) {
      const V next = *reinterpret_cast<const V*>(row + c);
      highest = next > highest ? next : highest;
    }
    const A top = combine_lanes<A, kBytes, true>(highest);
    A sums[kLanes] = {};
    for (int64_t c = 0; c < width; c += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const A below = row[c + lane] - top;
        const A p = exp(below, A(80)) + (below - below);  // no subnormal shares: they are slow
        row[c + lane] = p;
        sums[lane] += p;
      }
    }
    const A sum = combine_lanes<A, kBytes, false>(*reinterpret_cast<const V*>(sums));
    const A share = A(1) / sum;
    for (int64_t c = 0; c < width; ++c) {
      row[c] *= share;
    }
  }
}

}  // namespace vpd::ops::cpu
