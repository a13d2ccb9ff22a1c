#include "ops/cross_attention.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/cpu/cross_attention_flash.h"
#include "ops/cpu/cross_attention_parts.h"

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

template <typename T, typename A>
struct Forward {
  AttentionShape shape;
  Rows<const T> q;
  Packed<A> keys;    // [batch, heads, width, padded tokens]
  Packed<A> values;  // [batch, heads, tokens, padded width]
  ActiveTokens active;
  A scale;
  bool per_head;
  Rows<T> out;
  T* map;

  // One block's buffers.
  struct Scratch {
    int64_t width_stride, token_stride;
    Buffer<A> q, out, probabilities, map;

    explicit Scratch(const AttentionShape& shape)
        : width_stride(padded<A>(shape.width)),
          token_stride(padded<A>(shape.tokens)),
          q(kBlock * width_stride),
          out(kBlock * width_stride),
          probabilities(kBlock * token_stride),
          map(kBlock * token_stride) {}
  };

  void write_map(const A* from, int64_t stride, int64_t image, int64_t first, int64_t rows,
                 int64_t plane, A factor) const {
    for (int64_t i = 0; i < active.count[image]; ++i) {
      T* to = map + (plane * shape.tokens + active.of(image)[i]) * shape.queries + first;
      for (int64_t r = 0; r < rows; ++r) {
        store(to[r], from[r * stride + i] * factor);
      }
    }
  }

  // The queries [first, first + rows) of one image.
  template <int kBytes>
  struct Block {
    static VPD_INLINE void run(const Forward* f, int64_t image, int64_t first, int64_t rows,
                               Scratch* scratch) {
      const AttentionShape& shape = f->shape;
      const int64_t count = f->active.count[image], tokens = scratch->token_stride;
      const int64_t width = scratch->width_stride;
      A *q = scratch->q.get(), *out = scratch->out.get(), *p = scratch->probabilities.get();
      A* map = scratch->map.get();
      for (int64_t h = 0; h < shape.heads; ++h) {
        load_rows(f->q.at(image, first, h * shape.width), f->q.row_stride, rows, shape.width,
                  f->scale, q, width);
        multiply<A, kBytes>(rows, padded<A>(count), shape.width, {q, width, 1},
                            f->keys.head(image, h), tokens, p, tokens, false);
        softmax_rows<A, kBytes>(p, rows, count, tokens);
        multiply<A, kBytes>(rows, width, count, {p, tokens, 1}, f->values.head(image, h), width,
                            out, width, false);
        store_rows(out, width, rows, shape.width, A(1), f->out.at(image, first, h * shape.width),
                   f->out.row_stride);
        if (f->per_head) {
          f->write_map(p, tokens, image, first, rows, image * shape.heads + h, A(1));
        } else if (h == 0) {
          std::copy_n(p, rows * tokens, map);
        } else {
          for (int64_t i = 0; i < rows * tokens; ++i) {
            map[i] += p[i];
          }
        }
      }
      if (!f->per_head) {
        f->write_map(map, tokens, image, first, rows, image, A(1) / static_cast<A>(shape.heads));
      }
    }
  };

  void run() const {
    const int64_t blocks = shape.blocks();
    at::parallel_for(0, shape.batch * blocks, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(shape);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % blocks * kBlock;
        run_widest<Block>(this, task / blocks, first, std::min(kBlock, shape.queries - first),
                          &scratch);
      }
    });
  }
};

std::tuple<Tensor, Tensor> cross_attention_cpu(const Tensor& q_, const Tensor& k_, const Tensor& v_,
                                               const std::optional<Tensor>& mask, int64_t heads,
                                               double scale, bool per_head) {
  check_cross_attention("cross_attention", q_, k_, v_, mask, heads);
  const Tensor q = with_dense_rows(q_), k = with_dense_rows(k_), v = with_dense_rows(v_);
  const AttentionShape shape{q.size(0), q.size(1), k.size(1), heads, q.size(2) / heads};
  c10::DimVector map_sizes{shape.batch, shape.tokens, shape.queries};
  if (per_head) {
    map_sizes.insert(map_sizes.begin() + 1, heads);
  }
  Tensor out = at::empty(q.sizes(), q.options());
  // Rows of tokens that are left out stay zero.
  Tensor map = mask ? at::zeros(map_sizes, q.options()) : at::empty(map_sizes, q.options());
  if (out.numel() == 0) {
    return {out, map};
  }
  const ActiveTokens active(mask, shape.batch, shape.tokens);
  if (flash_takes(q, active, scale)) {
    cross_attention_flash(q, k, v, active, heads, scale, per_head, out, map);
    return {out, map};
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, q.scalar_type(), "cross_attention", [&] {
        using A = at::opmath_type<scalar_t>;
        const Forward<scalar_t, A> forward{
            .shape = shape,
            .q = rows_of<scalar_t>(q),
            .keys = pack<A, /*kTransposed=*/true>(shape, active, rows_of<scalar_t>(k)),
            .values = pack<A, /*kTransposed=*/false>(shape, active, rows_of<scalar_t>(v)),
            .active = active,
            .scale = static_cast<A>(scale),
            .per_head = per_head,
            .out = {out.mutable_data_ptr<scalar_t>(), out.stride(0), out.stride(1)},
            .map = map.mutable_data_ptr<scalar_t>()};
        forward.run();
      });
  return {out, map};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) { m.impl("cross_attention", cross_attention_cpu); }

}  // namespace vpd::ops::cpu
