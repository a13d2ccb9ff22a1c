#include "ops/deformable_attention.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/cpu/deformable_attention_levels.h"

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

constexpr int64_t kGrain = 16;  // queries worth a thread

template <typename T, typename A>
struct Forward {
  const DeformableShape& shape;
  const SampleTable<A>& table;  // of all heads
  const A* value;               // packed
  const A* locations;
  const A* weights;
  T* out;

  // One query's samples, all heads.
  struct Scratch {
    Buffer<A> right, down, corners, sum;  // corners: [4, samples], times the attention weight
    Buffer<int32_t> row;

    Scratch(const DeformableShape& shape, int64_t samples)
        : right(samples),
          down(samples),
          corners(4 * samples),
          sum(padded<A>(shape.width)),
          row(samples) {}
  };

  static VPD_INLINE void weigh(int64_t samples, const A* __restrict weights,
                               const A* __restrict right, const A* __restrict down,
                               A* __restrict corners) {
    for (int64_t i = 0; i < samples; ++i) {
      const A below = weights[i] * down[i], above = weights[i] - below;
      const A above_right = above * right[i], below_right = below * right[i];
      corners[i] = above - above_right;
      corners[samples + i] = above_right;
      corners[2 * samples + i] = below - below_right;
      corners[3 * samples + i] = below_right;
    }
  }

  // Sums over a head's samples of kVectors vectors of channels, held in registers.
  template <int kBytes, int kVectors>
  static VPD_INLINE void blend(const A* plane, int64_t width, int64_t count, const int32_t* row,
                               const int32_t* line, const A* corners, int64_t samples, A* sum) {
    using V = typename Vector<A, kBytes>::type;
    constexpr int64_t kLanes = Vector<A, kBytes>::kLanes;
    V sums[kVectors] = {};
    for (int64_t i = 0; i < count; ++i) {
      const A* above = plane + row[i] * width;
      const A* below = above + line[i] * width;
      const A w00 = corners[i], w01 = corners[samples + i];
      const A w10 = corners[2 * samples + i], w11 = corners[3 * samples + i];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const V* pixels = reinterpret_cast<const V*>(above + v * kLanes);
        const V* right = reinterpret_cast<const V*>(above + width + v * kLanes);
        const V* under = reinterpret_cast<const V*>(below + v * kLanes);
        const V* across = reinterpret_cast<const V*>(below + width + v * kLanes);
        sums[v] += w00 * *pixels + w01 * *right + (w10 * *under + w11 * *across);
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      *reinterpret_cast<V*>(sum + v * kLanes) = sums[v];
    }
  }

  // Queries [begin, end) of all images.
  template <int kBytes>
  struct Queries {
    static VPD_INLINE void run(const Forward* f, int64_t begin, int64_t end, Scratch* scratch) {
      constexpr int64_t kLanes = Vector<A, kBytes>::kLanes;
      const DeformableShape& shape = f->shape;
      const int64_t count = shape.samples(), samples = shape.heads * count;
      const int64_t width = padded<A>(shape.width);
      const int64_t vectors = (shape.width + kLanes - 1) / kLanes;
      const int32_t* line = f->table.stride.data();
      const int32_t* row = scratch->row.get();
      const A* corners = scratch->corners.get();
      for (int64_t q = begin; q < end; ++q) {
        place(&f->table, 0, samples, f->locations + q * samples * 2, scratch->right.get(),
              scratch->down.get(), scratch->row.get());
        weigh(samples, f->weights + q * samples, scratch->right.get(), scratch->down.get(),
              scratch->corners.get());
        for (int64_t h = 0; h < shape.heads; ++h) {
          const int64_t plane = q / shape.queries * shape.heads + h, first = h * count;
          const A* pixels = f->value + plane * shape.rows * width;
          A* sum = scratch->sum.get();
          int64_t v = 0;
          for (; v + 2 <= vectors; v += 2) {
            blend<kBytes, 2>(pixels + v * kLanes, width, count, row + first, line + first,
                             corners + first, samples, sum + v * kLanes);
          }
          if (v < vectors) {
            blend<kBytes, 1>(pixels + v * kLanes, width, count, row + first, line + first,
                             corners + first, samples, sum + v * kLanes);
          }
          T* __restrict to = f->out + (q * shape.heads + h) * shape.width;
          for (int64_t d = 0; d < shape.width; ++d) store(to[d], sum[d]);
        }
      }
    }
  };

  void run() const {
    at::parallel_for(0, shape.batch * shape.queries, kGrain, [&](int64_t begin, int64_t end) {
      Scratch scratch(shape, shape.heads * shape.samples());
      run_widest<Queries>(this, begin, end, &scratch);
    });
  }
};

Tensor deformable_attention_cpu(const Tensor& value_, const Tensor& shapes,
                                const Tensor& locations_, const Tensor& weights_) {
  check_deformable_attention(value_, shapes, locations_, weights_);
  const DeformableShape shape(value_, shapes, locations_);
  const c10::DimVector sizes{shape.batch, shape.queries, shape.heads * shape.width};
  if (value_.numel() == 0 || weights_.numel() == 0) {
    return at::zeros(sizes, value_.options());
  }
  const auto type = at::toOpMathType(value_.scalar_type());
  const Tensor value = value_.contiguous(), locations = locations_.to(type).contiguous();
  const Tensor weights = weights_.to(type).contiguous();
  Tensor out = at::empty(sizes, value.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, value.scalar_type(), "deformable_attention", [&] {
        using A = at::opmath_type<scalar_t>;
        const Tensor packed = at::empty({shape.planes(), shape.rows, padded<A>(shape.width)},
                                        value.options().dtype(type));
        pack_levels(shape, value.const_data_ptr<scalar_t>(), packed.mutable_data_ptr<A>());
        const SampleTable<A> table(shape, shape.heads);
        const Forward<scalar_t, A> forward{.shape = shape,
                                           .table = table,
                                           .value = packed.const_data_ptr<A>(),
                                           .locations = locations.const_data_ptr<A>(),
                                           .weights = weights.const_data_ptr<A>(),
                                           .out = out.mutable_data_ptr<scalar_t>()};
        forward.run();
      });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) { m.impl("deformable_attention", deformable_attention_cpu); }

}  // namespace vpd::ops::cpu
