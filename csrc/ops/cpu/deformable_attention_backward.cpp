// One task is one level of one head of one image: its pixels and its samples belong to no other
// task, so threads add to the gradients without locks and always in the same order.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/cpu/deformable_attention_levels.h"

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

template <typename T, typename A>
struct Backward {
  const DeformableShape& shape;
  const SampleTable<A>& table;  // of one head
  const T* grad;
  const A* value;  // packed
  const A* locations;
  const A* weights;
  A* grad_value;  // packed
  A* grad_locations;
  A* grad_weights;

  // One query's points of one level, and the gradient that came to its head.
  struct Scratch {
    Buffer<A> right, down, grad;
    Buffer<int32_t> row;

    explicit Scratch(const DeformableShape& shape)
        : right(shape.points),
          down(shape.points),
          grad(padded<A>(shape.width)),
          row(shape.points) {}
  };

  // Adds weight times a share of `from` to each corner; returns products of `from` and corners.
  template <int kBytes>
  static VPD_INLINE void corners(int64_t vectors, const A* from, const A* const (&pixel)[4],
                                 A* const (&into)[4], const A (&share)[4], A (&product)[4]) {
    using V = typename Vector<A, kBytes>::type;
    constexpr int64_t kLanes = Vector<A, kBytes>::kLanes;
    V products[4] = {};
    for (int64_t v = 0; v < vectors; ++v) {
      const V up = *reinterpret_cast<const V*>(from + v * kLanes);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        products[c] += up * *reinterpret_cast<const V*>(pixel[c] + v * kLanes);
        *reinterpret_cast<V*>(into[c] + v * kLanes) += share[c] * up;
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c)
      product[c] = combine_lanes<A, kBytes, /*kHighest=*/false>(products[c]);
  }

  template <int kBytes>
  struct Task {
    static VPD_INLINE void run(const Backward* b, int64_t plane, int64_t level, Scratch* scratch) {
      constexpr int64_t kLanes = Vector<A, kBytes>::kLanes;
      const DeformableShape& shape = b->shape;
      const int64_t width = padded<A>(shape.width), points = shape.points;
      const int64_t vectors = (shape.width + kLanes - 1) / kLanes;
      const int64_t image = plane / shape.heads, head = plane % shape.heads;
      const PackedLevel& own = shape.levels[level];
      const int64_t first = plane * shape.rows * width, line = own.stride() * width;
      const A *right = scratch->right.get(), *down = scratch->down.get();
      A* up = scratch->grad.get();
      A* cleared = b->grad_value + first + own.row * width;
      for (int64_t i = 0; i < (own.height + 2) * line; ++i) cleared[i] = 0;
      for (int64_t q = 0; q < shape.queries; ++q) {
        const int64_t row = (image * shape.queries + q) * shape.heads + head;
        const int64_t sample = row * shape.samples() + level * points;
        const T* __restrict grad = b->grad + row * shape.width;
        for (int64_t d = 0; d < shape.width; ++d) up[d] = load(grad[d]);
        place(&b->table, level * points, points, b->locations + sample * 2, scratch->right.get(),
              scratch->down.get(), scratch->row.get());
        for (int64_t p = 0; p < points; ++p) {
          const A x = right[p], y = down[p], weight = b->weights[sample + p];
          const A share[4] = {(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x};
          const A times[4] = {weight * share[0], weight * share[1], weight * share[2],
                              weight * share[3]};
          const int64_t at = first + scratch->row.get()[p] * width;
          const A* from = b->value + at;
          A* to = b->grad_value + at;
          A product[4];
          corners<kBytes>(vectors, up, {from, from + width, from + line, from + line + width},
                          {to, to + width, to + line, to + line + width}, times, product);
          b->grad_weights[sample + p] = share[0] * product[0] + share[1] * product[1] +
                                        share[2] * product[2] + share[3] * product[3];
          const A along_x = (1 - y) * (product[1] - product[0]) + y * (product[3] - product[2]);
          const A along_y = (1 - x) * (product[2] - product[0]) + x * (product[3] - product[1]);
          b->grad_locations[(sample + p) * 2] = weight * static_cast<A>(own.width) * along_x;
          b->grad_locations[(sample + p) * 2 + 1] = weight * static_cast<A>(own.height) * along_y;
        }
      }
    }
  };

  void run() const {
    const auto levels = static_cast<int64_t>(shape.levels.size());
    at::parallel_for(0, shape.planes() * levels, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(shape);
      for (int64_t i = begin; i < end; ++i) {
        run_widest<Task>(this, i / levels, i % levels, &scratch);
      }
    });
  }
};

std::tuple<Tensor, Tensor, Tensor> deformable_attention_backward_cpu(const Tensor& grad_,
                                                                     const Tensor& value_,
                                                                     const Tensor& shapes,
                                                                     const Tensor& locations_,
                                                                     const Tensor& weights_) {
  check_deformable_attention_backward(grad_, value_, shapes, locations_, weights_);
  const DeformableShape shape(value_, shapes, locations_);
  if (value_.numel() == 0 || weights_.numel() == 0) {
    const auto zeros = [](const Tensor& t) { return at::zeros(t.sizes(), t.options()); };
    return {zeros(value_), zeros(locations_), zeros(weights_)};
  }
  const auto type = at::toOpMathType(value_.scalar_type());
  const Tensor value = value_.contiguous(), locations = locations_.to(type).contiguous();
  const Tensor weights = weights_.to(type).contiguous();
  const Tensor grad = grad_.to(value.scalar_type()).contiguous();
  Tensor grad_value = at::empty(value.sizes(), value.options());
  Tensor grad_locations = at::empty(locations.sizes(), locations.options());
  Tensor grad_weights = at::empty(weights.sizes(), weights.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, value.scalar_type(), "deformable_attention_backward", [&] {
        using A = at::opmath_type<scalar_t>;
        const Tensor packed = at::empty({2, shape.planes(), shape.rows, padded<A>(shape.width)},
                                        value.options().dtype(type));
        A* values = packed.mutable_data_ptr<A>();
        A* grads = values + packed.stride(0);
        pack_levels(shape, value.const_data_ptr<scalar_t>(), values);
        const SampleTable<A> table(shape, 1);
        const Backward<scalar_t, A> backward{.shape = shape,
                                             .table = table,
                                             .grad = grad.const_data_ptr<scalar_t>(),
                                             .value = values,
                                             .locations = locations.const_data_ptr<A>(),
                                             .weights = weights.const_data_ptr<A>(),
                                             .grad_value = grads,
                                             .grad_locations = grad_locations.mutable_data_ptr<A>(),
                                             .grad_weights = grad_weights.mutable_data_ptr<A>()};
        backward.run();
        unpack_levels(shape, grads, grad_value.mutable_data_ptr<scalar_t>());
      });
  return {grad_value, grad_locations.to(locations_.scalar_type()),
          grad_weights.to(weights_.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) {
  m.impl("deformable_attention_backward", deformable_attention_backward_cpu);
}

}  // namespace vpd::ops::cpu
