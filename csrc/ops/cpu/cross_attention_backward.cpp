// Probabilities are computed again, a block of queries and a head at a time:
//   P = softmax(scale Q K^T), dP = dO V^T + dMap^T, dS = P (dP - rowsum(P dP))
//   dQ = scale dS K, dK = scale dS^T Q, dV = P^T dO
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "ops/cpu/cross_attention_parts.h"
#include "ops/cross_attention.h"

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

// gradient of probabilities -> gradient of scores, in place
template <typename A, int kBytes>
VPD_INLINE void softmax_backward_rows(const A* probabilities, A* gradient, int64_t rows,
                                      int64_t width, int64_t stride) {
  using V = typename Vector<A, kBytes>::type;
  constexpr int64_t kLanes = Vector<A, kBytes>::kLanes;
  for (int64_t r = 0; r < rows; ++r) {
    const A* p = probabilities + r * stride;
    A* g = gradient + r * stride;
    V sums{};
    for (int64_t c = 0; c < width; c += kLanes) {
      sums += *reinterpret_cast<const V*>(p + c) * *reinterpret_cast<const V*>(g + c);
    }
    const A sum = combine_lanes<A, kBytes, false>(sums);
    for (int64_t c = 0; c < width; c += kLanes) {
      V& to = *reinterpret_cast<V*>(g + c);
      to = *reinterpret_cast<const V*>(p + c) * (to - sum);
    }
  }
}

template <typename T, typename A>
struct Backward {
  AttentionShape shape;
  Rows<const T> grad_out;  // data null: no gradient of out
  const T* grad_map;       // null: no gradient of map
  bool per_head;
  Rows<const T> q;
  ActiveTokens active;
  Packed<A> keys_transposed, values_transposed;  // [batch, heads, width, padded tokens]
  Packed<A> keys;                                // [batch, heads, tokens, padded width]
  A scale;
  T *grad_q, *grad_k, *grad_v;  // dense; null when not wanted

  int64_t width_stride() const { return padded<A>(shape.width); }
  int64_t token_stride() const { return padded<A>(shape.tokens); }
  int64_t columns() const { return shape.heads * shape.width; }
  int64_t head_size() const { return shape.tokens * width_stride(); }

  struct Scratch {
    Buffer<A> q, grad_out, grad_q, probabilities, gradient, grad_map;

    explicit Scratch(const Backward& b)
        : q(kBlock * b.width_stride()),
          grad_out(kBlock * b.width_stride()),
          grad_q(kBlock * b.width_stride()),
          probabilities(kBlock * b.token_stride()),
          gradient(kBlock * b.token_stride()),
          grad_map(kBlock * b.token_stride()) {}
  };

  // The block's gradient from plane [tokens, queries] of the map, turned to [rows, tokens].
  void read_map(int64_t image, int64_t plane, int64_t first, int64_t rows, A factor, A* to) const {
    for (int64_t i = 0; i < active.count[image]; ++i) {
      const T* from =
          grad_map + (plane * shape.tokens + active.of(image)[i]) * shape.queries + first;
      for (int64_t r = 0; r < rows; ++r) {
        to[r * token_stride() + i] = load(from[r]) * factor;
      }
    }
  }

  // The queries [first, first + rows) of one image; sums: gradients of keys, then of values,
  // [heads, tokens, width].
  template <int kBytes>
  struct Block {
    static VPD_INLINE void run(const Backward* b, int64_t image, int64_t first, int64_t rows,
                               Scratch* scratch, A* sums) {
      const AttentionShape& shape = b->shape;
      const int64_t count = b->active.count[image], used = padded<A>(count);
      const int64_t tokens = b->token_stride(), width = b->width_stride();
      A *q = scratch->q.get(), *grad_out = scratch->grad_out.get();
      A *p = scratch->probabilities.get(), *gradient = scratch->gradient.get();
      A *grad_q = scratch->grad_q.get(), *grad_map = scratch->grad_map.get();
      if (b->grad_map != nullptr && !b->per_head) {
        b->read_map(image, image, first, rows, A(1) / static_cast<A>(shape.heads), grad_map);
      }
      for (int64_t h = 0; h < shape.heads; ++h) {
        A* sum_k = sums + h * b->head_size();
        A* sum_v = sum_k + shape.heads * b->head_size();
        load_rows(b->q.at(image, first, h * shape.width), b->q.row_stride, rows, shape.width,
                  b->scale, q, width);
        multiply<A, kBytes>(rows, used, shape.width, {q, width, 1},
                            b->keys_transposed.head(image, h), tokens, p, tokens, false);
        softmax_rows<A, kBytes>(p, rows, count, tokens);

        if (b->grad_map != nullptr) {
          if (b->per_head) {
            b->read_map(image, image * shape.heads + h, first, rows, A(1), grad_map);
          }
          std::copy_n(grad_map, rows * tokens, gradient);
        }
        if (b->grad_out.data != nullptr) {
          load_rows(b->grad_out.at(image, first, h * shape.width), b->grad_out.row_stride, rows,
                    shape.width, A(1), grad_out, width);
          if (b->grad_v != nullptr) {
            multiply<A, kBytes>(count, width, rows, {p, 1, tokens}, grad_out, width, sum_v, width,
                                true);
          }
          multiply<A, kBytes>(rows, used, shape.width, {grad_out, width, 1},
                              b->values_transposed.head(image, h), tokens, gradient, tokens,
                              b->grad_map != nullptr);
        }
        softmax_backward_rows<A, kBytes>(p, gradient, rows, used, tokens);

        if (b->grad_q != nullptr) {
          multiply<A, kBytes>(rows, width, count, {gradient, tokens, 1}, b->keys.head(image, h),
                              width, grad_q, width, false);
          store_rows(grad_q, width, rows, shape.width, b->scale,
                     b->grad_q + (image * shape.queries + first) * b->columns() + h * shape.width,
                     b->columns());
        }
        if (b->grad_k != nullptr) {  // q is already scaled
          multiply<A, kBytes>(count, width, rows, {gradient, 1, tokens}, q, width, sum_k, width,
                              true);
        }
      }
    }
  };

  // Adds up the sums of all parts of an image and writes them to the tokens they belong to.
  void write_tokens(int64_t image, const A* sums, int64_t parts) const {
    const int64_t size = shape.heads * head_size();
    T* const targets[2] = {grad_k, grad_v};
    for (int64_t which = 0; which < 2; ++which) {
      if (targets[which] == nullptr) {
        continue;
      }
      for (int64_t h = 0; h < shape.heads; ++h) {
        for (int64_t i = 0; i < active.count[image]; ++i) {
          const A* from = sums + which * size + h * head_size() + i * width_stride();
          T* to = targets[which] + (image * shape.tokens + active.of(image)[i]) * columns() +
                  h * shape.width;
          for (int64_t d = 0; d < shape.width; ++d) {
            A sum = from[d];
            for (int64_t part = 1; part < parts; ++part) {
              sum += from[part * 2 * size + d];
            }
            store(to[d], sum);
          }
        }
      }
    }
  }

  // An image is cut into parts, each with sums of its own, only where there are too few images for
  // all threads.
  void run() const {
    const int64_t threads = at::get_num_threads(), blocks = shape.blocks();
    const bool enough = shape.batch % threads == 0 || shape.batch >= 4 * threads;
    const int64_t parts = enough ? 1 : std::min(threads, blocks);
    const int64_t size = 2 * shape.heads * head_size();
    const Buffer<A> all_sums(parts > 1 ? shape.batch * parts * size : 0);
    at::parallel_for(0, shape.batch * parts, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(*this);
      const Buffer<A> own_sums(parts > 1 ? 0 : size);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t image = task / parts, part = task % parts;
        A* sums = parts > 1 ? all_sums.get() + task * size : own_sums.get();
        std::fill_n(sums, size, A(0));
        for (int64_t i = blocks * part / parts; i < blocks * (part + 1) / parts; ++i) {
          const int64_t first = i * kBlock;
          run_widest<Block>(this, image, first, std::min(kBlock, shape.queries - first), &scratch,
                            sums);
        }
        if (parts == 1) {
          write_tokens(image, sums, 1);
        }
      }
    });
    if (parts > 1) {
      for (int64_t image = 0; image < shape.batch; ++image) {
        write_tokens(image, all_sums.get() + image * parts * size, parts);
      }
    }
  }
};

std::tuple<Tensor, Tensor, Tensor> cross_attention_backward_cpu(
    const std::optional<Tensor>& grad_out_, const std::optional<Tensor>& grad_map_,
    const Tensor& q_, const Tensor& k_, const Tensor& v_, const std::optional<Tensor>& mask,
    int64_t heads, double scale, bool per_head, std::array<bool, 3> wanted) {
  check_cross_attention_backward(grad_out_, grad_map_, q_, k_, v_, mask, heads, per_head);
  const bool written = (grad_out_ || grad_map_) && q_.numel() > 0;
  const auto like = [&](bool want, const Tensor& t, bool all_rows) {
    return !want                 ? Tensor()
           : written && all_rows ? at::empty(t.sizes(), t.options())
                                 : at::zeros(t.sizes(), t.options());
  };
  // Tokens that are left out keep a zero gradient; without grad_out nothing reaches v.
  Tensor grad_q = like(wanted[0], q_, true), grad_k = like(wanted[1], k_, !mask);
  Tensor grad_v = like(wanted[2], v_, !mask && grad_out_);
  if (!written) {
    return {grad_q, grad_k, grad_v};
  }
  const Tensor q = with_dense_rows(q_), k = with_dense_rows(k_), v = with_dense_rows(v_);
  const at::ScalarType type = q.scalar_type();
  const Tensor grad_out = grad_out_ ? with_dense_rows(grad_out_->to(type)) : Tensor();
  const Tensor grad_map = grad_map_ ? grad_map_->to(type).contiguous() : Tensor();
  const AttentionShape shape{q.size(0), q.size(1), k.size(1), heads, q.size(2) / heads};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, type, "cross_attention_backward", [&] {
    using T = scalar_t;
    using A = at::opmath_type<T>;
    const ActiveTokens active(mask, shape.batch, shape.tokens);
    const auto target = [](Tensor& t) { return t.defined() ? t.mutable_data_ptr<T>() : nullptr; };
    const Backward<T, A> backward{
        .shape = shape,
        .grad_out = grad_out_ ? rows_of<T>(grad_out) : Rows<const T>{nullptr, 0, 0},
        .grad_map = grad_map_ ? grad_map.const_data_ptr<T>() : nullptr,
        .per_head = per_head,
        .q = rows_of<T>(q),
        .active = active,
        .keys_transposed = pack<A, true>(shape, active, rows_of<T>(k)),
        .values_transposed = pack<A, true>(shape, active, rows_of<T>(v)),
        .keys = pack<A, false>(shape, active, rows_of<T>(k)),
        .scale = static_cast<A>(scale),
        .grad_q = target(grad_q),
        .grad_k = target(grad_k),
        .grad_v = grad_out_ ? target(grad_v) : nullptr};
    backward.run();
  });
  return {grad_q, grad_k, grad_v};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) {
  m.impl("cross_attention_backward", cross_attention_backward_cpu);
}

}  // namespace vpd::ops::cpu
