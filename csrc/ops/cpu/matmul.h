#pragma once
// Products of small matrices that stay in the first-level cache, for use inside a kernel: c = a b
// or c += a b, with a read one value at a time in any layout and b, c row by row in whole vectors.
#include <algorithm>
#include <memory>
#include <new>
#include <utility>

#include "ops/cpu/simd.h"

namespace vpd::ops::cpu {

// Rows of b and c are padded to multiples of this many bytes, for every instruction set.
inline constexpr int64_t kPadBytes = 64;

template <typename A>
constexpr int64_t padded(int64_t width) {
  constexpr int64_t unit = kPadBytes / static_cast<int64_t>(sizeof(A));
  return (width + unit - 1) / unit * unit;
}

// Zeros, aligned to whole cache lines.
template <typename A>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size)
      : data_(static_cast<A*>(::operator new(size * sizeof(A), kAlignment))) {
    std::fill_n(data_.get(), size, A(0));
  }
  A* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{kPadBytes};
  struct Free {
    void operator()(A* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<A, Free> data_;
};

template <typename A, int kBytes>
struct Vector {
  static constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(A));
  typedef A type __attribute__((vector_size(kBytes), aligned(alignof(A)), may_alias));
};

// All lanes combined, in log2(lanes) steps: each adds (or takes the larger of) the vector and
// itself turned by half.
template <int64_t kTurn, typename V, size_t... kLane>
VPD_INLINE void turn(const V& from, V& to, std::index_sequence<kLane...>) {
  to = __builtin_shufflevector(from, from, ((kLane + kTurn) % sizeof...(kLane))...);
}

template <typename A, int kBytes, bool kHighest, int64_t kTurn = Vector<A, kBytes>::kLanes / 2>
VPD_INLINE A combine_lanes(const typename Vector<A, kBytes>::type& lanes) {
  using V = typename Vector<A, kBytes>::type;
  V other;
  turn<kTurn>(lanes, other, std::make_index_sequence<Vector<A, kBytes>::kLanes>());
  V both;
  if constexpr (kHighest) {
    both = other > lanes ? other : lanes;
  } else {
    both = lanes + other;
  }
  if constexpr (kTurn > 1) {
    return combine_lanes<A, kBytes, kHighest, kTurn / 2>(both);
  } else {
    return both[0];
  }
}

template <typename A>
struct Strided {  // value (row, column) at data[row * row_stride + column * column_stride]
  const A* data;
  int64_t row_stride, column_stride;
};

// c [kRows, kVectors vectors] (+)= a [kRows, depth] b [depth, kVectors vectors], held in registers
// throughout.
template <typename A, int kBytes, int kRows, int kVectors>
VPD_INLINE void multiply_tile(int64_t depth, Strided<A> a, const A* b, int64_t b_stride, A* c,
                              int64_t c_stride, bool add) {
  using V = typename Vector<A, kBytes>::type;
  constexpr int64_t kLanes = Vector<A, kBytes>::kLanes;
  V sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = add ? *reinterpret_cast<const V*>(c + r * c_stride + v * kLanes) : V{};
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    V row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      row[v] = *reinterpret_cast<const V*>(b + k * b_stride + v * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const A factor = a.data[r * a.row_stride + k * a.column_stride];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] += factor * row[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      *reinterpret_cast<V*>(c + r * c_stride + v * kLanes) = sums[r][v];
    }
  }
}

// All rows of a strip kVectors wide: tiles of kRows, then of half as many, down to one.
template <typename A, int kBytes, int kRows, int kVectors>
VPD_INLINE void multiply_strip(int64_t rows, int64_t depth, Strided<A> a, const A* b,
                               int64_t b_stride, A* c, int64_t c_stride, bool add) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) {
    multiply_tile<A, kBytes, kRows, kVectors>(
        depth, {a.data + row * a.row_stride, a.row_stride, a.column_stride}, b, b_stride,
        c + row * c_stride, c_stride, add);
  }
  if constexpr (kRows > 1) {
    if (row < rows) {
      multiply_strip<A, kBytes, kRows / 2, kVectors>(
          rows - row, depth, {a.data + row * a.row_stride, a.row_stride, a.column_stride}, b,
          b_stride, c + row * c_stride, c_stride, add);
    }
  }
}

// c [rows, width] (+)= a [rows, depth] b [depth, width]; width is a multiple of the padding.
template <typename A, int kBytes>
VPD_INLINE void multiply(int64_t rows, int64_t width, int64_t depth, Strided<A> a, const A* b,
                         int64_t b_stride, A* c, int64_t c_stride, bool add) {
  constexpr int64_t kLanes = Vector<A, kBytes>::kLanes;
  // Sums, one row of b and one factor must fit the 32 (AVX-512) or 16 vector registers.
  constexpr int64_t kWidest = kBytes == 64 ? 5 : 3;
  const int64_t vectors = width / kLanes, strips = (vectors + kWidest - 1) / kWidest;
  const int64_t each = (vectors + strips - 1) / strips;
  for (int64_t first = 0; first < vectors; first += each) {
    const int64_t count = vectors - first < each ? vectors - first : each;
    const A* from = b + first * kLanes;
    A* to = c + first * kLanes;
    switch (count) {
      case 1:
        multiply_strip<A, kBytes, 8, 1>(rows, depth, a, from, b_stride, to, c_stride, add);
        break;
      case 2:
        multiply_strip<A, kBytes, kBytes == 64 ? 8 : 4, 2>(rows, depth, a, from, b_stride, to,
                                                           c_stride, add);
        break;
      case 3:
        multiply_strip<A, kBytes, kBytes == 64 ? 8 : 4, 3>(rows, depth, a, from, b_stride, to,
                                                           c_stride, add);
        break;
      default:
        if constexpr (kBytes == 64) {
          if (count == 4) {
            multiply_strip<A, kBytes, 4, 4>(rows, depth, a, from, b_stride, to, c_stride, add);
          } else {
            multiply_strip<A, kBytes, 4, 5>(rows, depth, a, from, b_stride, to, c_stride, add);
          }
        }
    }
  }
}

}  // namespace vpd::ops::cpu
