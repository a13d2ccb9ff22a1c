#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "core/check.h"
#include "ops/cpu/cpu_level.h"
#include "ops/flash_attention.h"

#if defined(__x86_64__)
#include "ops/cpu/flash_attention_backward_kernel.h"
#include "ops/cpu/flash_heads.h"
#endif

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

#if defined(__x86_64__)
using namespace flash;

// Heads are taken in groups, whose packed rows are all the memory that is needed.
template <typename Words>
class Backward {
  using Number = typename Words::Number;
  using Panels = Panel<Words>;
  static constexpr int64_t kBudget = int64_t{1} << 21;  // words of a group, if that keeps all busy
  static constexpr float kUnreached = 1e30f;

 public:
  Backward(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
           const Tensor& logsumexp, double scale, const std::array<Tensor, 3>& grads)
      : grad_(grad),
        q_(q),
        k_(k),
        v_(v),
        out_(out),
        logsumexp_(logsumexp.const_data_ptr<float>()),
        scale_(static_cast<float>(scale)),
        heads_(q_.batch * q_.heads),
        query_blocks_(grads[0].defined() ? blocks(q_.rows) : 0),
        key_blocks_(grads[1].defined() || grads[2].defined() ? blocks(k_.rows) : 0),
        columns_(padded_to(q_.rows, 2 * kLanes)),
        group_(group_size()),
        rows_{Pair(group_, q_), Pair(group_, grad_), Pair(group_, k_),
              Pair(group_, v_, /*both=*/false)},
        levels_(group_ * columns_),
        deltas_(group_ * columns_) {
    for (int i = 0; i < 3; ++i) {
      to_[i] = grads[i].defined() ? static_cast<Number*>(grads[i].mutable_data_ptr()) : nullptr;
    }
  }

  void run() const {
    for (int64_t first = 0; first < heads_; first += group_) {
      const int64_t count = std::min(group_, heads_ - first);
      at::parallel_for(0, count * kPanels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          pack(first + task / kPanels, task / kPanels, task % kPanels);
        }
      });
      const int64_t blocks = query_blocks_ + key_blocks_;
      at::parallel_for(0, count * blocks, 1, [&](int64_t begin, int64_t end) {
        const int64_t words = Panels::words(q_.width), width = Panels::columns(q_.width);
        const Memory<Words> scores(words, width), gradients(words, width);
        for (int64_t task = begin; task < end; ++task) {
          const int64_t place = task / blocks, block = task % blocks;
          if (block < query_blocks_) {
            queries(first + place, place, block * kQueries, scores.scratch, gradients.scratch);
          } else {
            keys(first + place, place, (block - query_blocks_) * kQueries, scores.scratch,
                 gradients.scratch);
          }
        }
      });
    }
  }

 private:
  enum Which { kQ, kGrad, kK, kV };
  static constexpr int64_t kPanels = 8;  // two layouts of four

  // Rows of a group's heads in both layouts, or as lanes alone.
  struct Pair {
    int64_t lanes_size, pairs_size;
    Buffer<uint32_t> lanes, pairs;

    Pair(int64_t group, const HeadRows<Number>& rows, bool both = true)
        : lanes_size(Panels::lanes_size(rows.rows, rows.width)),
          pairs_size(both ? Panels::pairs_size(rows.rows, rows.width) : 0),
          lanes(group * lanes_size),
          pairs(group * pairs_size) {}
  };

  static int64_t blocks(int64_t rows) { return (rows + kQueries - 1) / kQueries; }

  int64_t group_size() const {
    int64_t words = 2 * columns_;
    for (const HeadRows<Number>* rows : {&q_, &grad_, &k_, &v_}) {
      words += Panels::lanes_size(rows->rows, rows->width);
      words += Panels::pairs_size(rows->rows, rows->width);
    }
    const int64_t threads = at::get_num_threads();
    return std::min(heads_, padded_to(std::max<int64_t>(1, kBudget / words), threads));
  }

  const HeadRows<Number>& source(int64_t which) const {
    return *std::array{&q_, &grad_, &k_, &v_}[which];
  }

  void pack(int64_t head, int64_t place, int64_t panel) const {
    const int64_t which = panel / 2;
    const HeadRows<Number>& rows = source(which);
    const Pair& to = rows_[which];
    if (panel % 2 == 0) {
      Panels::lanes(rows, head, nullptr, rows.rows, to.lanes.get() + place * to.lanes_size);
    } else if (which == kV) {  // its pairs are nowhere read
      levels_and_deltas(head, levels_.get() + place * columns_, deltas_.get() + place * columns_);
    } else {
      Panels::pairs(rows, head, nullptr, rows.rows, to.pairs.get() + place * to.pairs_size);
    }
  }

  void levels_and_deltas(int64_t head, float* levels, float* deltas) const {
    for (int64_t row = 0; row < q_.rows; ++row) {
      levels[row] = logsumexp_[head * q_.rows + row] * static_cast<float>(kLog2E);
      const Number *a = grad_.at(head, row), *b = out_.at(head, row);
      float sum = 0;
      for (int64_t i = 0; i < q_.width; ++i) sum += Words::value(a[i]) * Words::value(b[i]);
      deltas[row] = sum;
    }
    std::fill(levels + q_.rows, levels + columns_, kUnreached);
  }

  Head packed(Which which, int64_t place) const {
    const Pair& from = rows_[which];
    return {from.lanes.get() + place * from.lanes_size,
            from.pairs.get() + place * from.pairs_size,
            source(which).rows,
            Panels::words(q_.width),
            Panels::columns(q_.width),
            scale_ * static_cast<float>(kLog2E)};
  }

  void queries(int64_t head, int64_t place, int64_t row, const Scratch& s, const Scratch& d) const {
    const int64_t count = std::min(kQueries, q_.rows - row);
    Panels::rows(q_, head, row, count, s.queries);
    Panels::rows(grad_, head, row, count, d.queries);
    gradient_of_queries<Words>(packed(kK, place), packed(kV, place), count,
                               levels_.get() + place * columns_ + row,
                               deltas_.get() + place * columns_ + row, s, d);
    write(0, q_, head, row, count, scale_, d.out);
  }

  void keys(int64_t head, int64_t place, int64_t row, const Scratch& s, const Scratch& d) const {
    const int64_t count = std::min(kQueries, k_.rows - row);
    Panels::rows(k_, head, row, count, s.queries);
    Panels::rows(v_, head, row, count, d.queries);
    gradient_of_keys<Words>(packed(kQ, place), packed(kGrad, place), count,
                            levels_.get() + place * columns_, deltas_.get() + place * columns_, s,
                            d);
    write(1, k_, head, row, count, scale_, d.out);
    write(2, v_, head, row, count, 1, s.out);
  }

  // To rows of a gradient [B, rows, heads, D].
  void write(int which, const HeadRows<Number>& like, int64_t head, int64_t row, int64_t count,
             float factor, const float* from) const {
    if (to_[which] == nullptr) return;
    const int64_t stride = Panels::columns(like.width);
    for (int64_t r = 0; r < count; ++r) {
      Number* to = dense_row(to_[which], like, head, row + r);
      for (int64_t i = 0; i < like.width; ++i) to[i] = Words::number(from[r * stride + i] * factor);
    }
  }

  HeadRows<Number> grad_, q_, k_, v_, out_;
  const float* logsumexp_;
  float scale_;
  int64_t heads_, query_blocks_, key_blocks_, columns_, group_;
  std::array<Pair, 4> rows_;       // by Which
  Buffer<float> levels_, deltas_;  // [group, columns]
  std::array<Number*, 3> to_;      // null: not wanted
};
#endif

std::tuple<Tensor, Tensor, Tensor> flash_attention_backward_cpu(
    const Tensor& grad_, const Tensor& q_, const Tensor& k_, const Tensor& v_, const Tensor& out_,
    const Tensor& logsumexp, double scale, std::array<bool, 3> wanted) {
  check_flash_attention_backward(grad_, q_, k_, v_, out_, logsumexp, scale);
#if defined(__x86_64__)
  VPD_CHECK(cpu_level() >= Level::kAVX512BF16,
            "flash_attention: this processor has no AVX-512 with bfloat16 products");
  const Tensor q = with_dense_rows(q_), k = with_dense_rows(k_), v = with_dense_rows(v_);
  const Tensor grad = with_dense_rows(grad_), out = with_dense_rows(out_);
  const auto like = [](bool want, const Tensor& t) {
    return want ? at::empty({t.size(0), t.size(2), t.size(1), t.size(3)}, t.options()) : Tensor();
  };
  const std::array grads{like(wanted[0], q), like(wanted[1], k), like(wanted[2], v)};
  if (q.size(2) == 0) {
    for (const Tensor& t : grads) {
      if (t.defined()) t.zero_();
    }
  } else if (q.numel() > 0 && q.scalar_type() == at::kFloat) {
    Backward<FloatWords>(grad, q, k, v, out, logsumexp.contiguous(), scale, grads).run();
  } else if (q.numel() > 0) {
    Backward<BFloat16Words>(grad, q, k, v, out, logsumexp.contiguous(), scale, grads).run();
  }
  const auto turned = [](const Tensor& t) { return t.defined() ? t.transpose(1, 2) : t; };
  return {turned(grads[0]), turned(grads[1]), turned(grads[2])};
#else
  fail("flash_attention: only for x86-64 processors");
#endif
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) {
  m.impl("flash_attention_backward", flash_attention_backward_cpu);
}

}  // namespace vpd::ops::cpu
