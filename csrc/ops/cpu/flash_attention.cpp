// Flash attention for processors with AVX-512 and its bfloat16 products. Each head's keys and
// values are first laid out as the kernel reads them (flash_attention_kernel.h); then every thread
// takes blocks of queries.
#include "ops/flash_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cstring>

#include "core/check.h"
#include "ops/cpu/cpu_level.h"

#if defined(__x86_64__)
#include "ops/cpu/flash_attention_kernel.h"
#include "ops/cpu/matmul.h"
#endif

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

#if defined(__x86_64__)
using namespace flash;

constexpr int64_t kBlock = 8 * kQueries;  // queries of a task

// Numbers of a tensor [B, heads, M, D] whose rows lie side by side.
template <typename Number>
struct Rows {
  const Number* data;
  int64_t batch, heads, rows, width, batch_stride, head_stride, row_stride;

  explicit Rows(const Tensor& t)
      : data(static_cast<const Number*>(t.const_data_ptr())),
        batch(t.size(0)),
        heads(t.size(1)),
        rows(t.size(2)),
        width(t.size(3)),
        batch_stride(t.stride(0)),
        head_stride(t.stride(1)),
        row_stride(t.stride(2)) {}
  const Number* at(int64_t head, int64_t row) const {  // head: of all images
    return data + head / heads * batch_stride + head % heads * head_stride + row * row_stride;
  }
};

template <typename Words>
class FlashAttention {
  using Number = typename Words::Number;
  static constexpr int64_t kPack = Words::kPack;

 public:
  FlashAttention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const Tensor& out)
      : q_(q),
        k_(k),
        v_(v),
        heads_(q_.batch * q_.heads),
        words_(padded_to(q_.width, kPack) / kPack),
        width_(padded_to(q_.width, kLanes)),
        keys_(padded_to(k_.rows, kLanes)),
        factor_(static_cast<float>(scale * 1.4426950408889634)),
        packed_keys_(heads_ * keys_ * words_),
        packed_values_(heads_ * keys_ / kPack * width_),
        out_(static_cast<Number*>(out.mutable_data_ptr())) {}

  void run() const {
    at::parallel_for(0, heads_, 1, [this](int64_t begin, int64_t end) {
      for (int64_t head = begin; head < end; ++head) {
        pack_keys(head);
        pack_values(head);
      }
    });
    const int64_t blocks = (q_.rows + kBlock - 1) / kBlock;
    at::parallel_for(0, heads_ * blocks, 1, [&](int64_t begin, int64_t end) {
      const Memory memory(words_, width_);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % blocks * kBlock, last = std::min(first + kBlock, q_.rows);
        for (int64_t row = first; row < last; row += kQueries) {
          attend_to(task / blocks, row, std::min(kQueries, last - row), memory.scratch);
        }
      }
    });
  }

 private:
  struct Memory {
    Buffer<uint32_t> queries, weights;
    Buffer<float> scores, high, sums, top, shrink, out;
    Scratch scratch;

    Memory(int64_t words, int64_t width)
        : queries(kQueries * words),
          weights(kQueries * kKeys / kPack),
          scores(kQueries * kKeys),
          high(kQueries * kLanes),
          sums(kQueries * kLanes),
          top(kQueries),
          shrink(kQueries),
          out(kQueries * width),
          scratch{queries.get(), scores.get(), weights.get(), high.get(),
                  sums.get(),    top.get(),    shrink.get(),  out.get()} {}
  };

  uint32_t* keys_of(int64_t head) const { return packed_keys_.get() + head * keys_ * words_; }
  uint32_t* values_of(int64_t head) const {
    return packed_values_.get() + head * keys_ / kPack * width_;
  }

  // The places of keys that are not there, and of an odd last column, stay zero.
  void pack_keys(int64_t head) const {
    uint32_t* to = keys_of(head);
    for (int64_t row = 0; row < k_.rows; ++row) {
      const Number* from = k_.at(head, row);
      uint32_t* column = to + row / kLanes * kLanes * words_ + row % kLanes;
      for (int64_t i = 0; i < q_.width / kPack; ++i) {
        std::memcpy(column + i * kLanes, from + i * kPack, sizeof(uint32_t));
      }
      if (q_.width % kPack) {
        std::memcpy(column + (words_ - 1) * kLanes, from + q_.width - 1, sizeof(Number));
      }
    }
  }

  void pack_values(int64_t head) const {
    Number* to = reinterpret_cast<Number*>(values_of(head));
    for (int64_t row = 0; row < v_.rows; ++row) {
      const Number* from = v_.at(head, row);
      Number* line = to + row / kPack * kPack * width_ + row % kPack;
      for (int64_t i = 0; i < v_.width; ++i) line[i * kPack] = from[i];
    }
  }

  void attend_to(int64_t head, int64_t row, int64_t queries, const Scratch& s) const {
    for (int64_t r = 0; r < queries; ++r) {
      std::memcpy(s.queries + r * words_, q_.at(head, row + r), q_.width * sizeof(Number));
    }
    attend<Words>({keys_of(head), values_of(head), k_.rows, words_, width_, factor_}, queries, s);
    for (int64_t r = 0; r < queries; ++r) {
      const int64_t image = head / q_.heads;
      Number* to = out_ + ((image * q_.rows + row + r) * q_.heads + head % q_.heads) * q_.width;
      write(s.out + r * width_, 1 / s.sums[r * kLanes], to);
    }
  }

  void write(const float* from, float factor, Number* to) const {
    for (int64_t i = 0; i < q_.width; ++i) {
      if constexpr (kPack == 1) {
        to[i] = from[i] * factor;
      } else {
        to[i] = c10::BFloat16(from[i] * factor).x;
      }
    }
  }

  Rows<Number> q_, k_, v_;
  int64_t heads_, words_, width_, keys_;
  float factor_;
  Buffer<uint32_t> packed_keys_, packed_values_;
  Number* out_;  // [B, M, heads, D]
};

Tensor with_dense_rows(const Tensor& t) { return t.stride(3) == 1 ? t : t.contiguous(); }
#endif

Tensor flash_attention_cpu(const Tensor& q_, const Tensor& k_, const Tensor& v_, double scale) {
  check_flash_attention(q_, k_, v_, scale);
#if defined(__x86_64__)
  VPD_CHECK(cpu_level() >= Level::kAVX512BF16,
            "flash_attention: this processor has no AVX-512 with bfloat16 products");
  const Tensor q = with_dense_rows(q_), k = with_dense_rows(k_), v = with_dense_rows(v_);
  Tensor out = at::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, q.options());
  if (q.scalar_type() == at::kFloat) {
    FlashAttention<FloatWords>(q, k, v, scale, out).run();
  } else {
    FlashAttention<BFloat16Words>(q, k, v, scale, out).run();
  }
  return out.transpose(1, 2);
#else
  fail("flash_attention: only for x86-64 processors");
#endif
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) { m.impl("flash_attention", flash_attention_cpu); }

}  // namespace vpd::ops::cpu
