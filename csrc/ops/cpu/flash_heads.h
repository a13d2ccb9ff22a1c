#pragma once
// Keys and values of heads, laid out as flash_attention_kernel.h reads them, and queries attending
// to them.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstring>

#include "ops/cpu/active_tokens.h"
#include "ops/cpu/flash_attention_kernel.h"
#include "ops/cpu/matmul.h"

namespace vpd::ops::cpu::flash {

constexpr double kLog2E = 1.4426950408889634;

// Numbers of a tensor [B, heads, M, D] whose rows' values lie side by side.
template <typename Number>
struct HeadRows {
  const Number* data;
  int64_t batch, heads, rows, width, batch_stride, head_stride, row_stride;

  explicit HeadRows(const at::Tensor& t)
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

// Row `row` of a head in a dense tensor [B, rows, heads, D] with the rows of `like`.
template <typename Number>
Number* dense_row(Number* data, const HeadRows<Number>& like, int64_t head, int64_t row) {
  const int64_t image = head / like.heads;
  return data + ((image * like.rows + row) * like.heads + head % like.heads) * like.width;
}

inline at::Tensor with_dense_rows(const at::Tensor& t) {
  return t.stride(3) == 1 ? t : t.contiguous();
}

// Rows of one head in the two layouts of the kernel. Rows index[0 ... count), or the first `count`
// ones without an index. The places of rows that are not there, and of an odd last column, stay
// zero.
template <typename Words>
struct Panel {
  using Number = typename Words::Number;
  static constexpr int64_t kPack = Words::kPack;

  static int64_t words(int64_t width) { return padded_to(width, kPack) / kPack; }
  static int64_t columns(int64_t width) { return padded_to(width, kLanes); }
  static int64_t lanes_size(int64_t rows, int64_t width) {
    return padded_to(rows, kLanes) * words(width);
  }
  static int64_t pairs_size(int64_t rows, int64_t width) {
    return padded_to(rows, kLanes) / kPack * columns(width);
  }

  // [vectors of rows, words, kLanes]
  static void lanes(const HeadRows<Number>& from, int64_t head, const int64_t* index, int64_t count,
                    uint32_t* to) {
    const int64_t all = words(from.width);
    for (int64_t row = 0; row < count; ++row) {
      const Number* numbers = from.at(head, index ? index[row] : row);
      uint32_t* column = to + row / kLanes * kLanes * all + row % kLanes;
      for (int64_t i = 0; i < from.width / kPack; ++i) {
        std::memcpy(column + i * kLanes, numbers + i * kPack, sizeof(uint32_t));
      }
      if (from.width % kPack) {
        std::memcpy(column + (all - 1) * kLanes, numbers + from.width - 1, sizeof(Number));
      }
    }
  }

  // [padded rows / kPack, columns]
  static void pairs(const HeadRows<Number>& from, int64_t head, const int64_t* index, int64_t count,
                    uint32_t* to) {
    const int64_t stride = columns(from.width);
    for (int64_t row = 0; row < count; ++row) {
      const Number* numbers = from.at(head, index ? index[row] : row);
      Number* line = reinterpret_cast<Number*>(to) + row / kPack * kPack * stride + row % kPack;
      for (int64_t i = 0; i < from.width; ++i) line[i * kPack] = numbers[i];
    }
  }

  // Rows [row, row + count) as they are, each in whole words.
  static void rows(const HeadRows<Number>& from, int64_t head, int64_t row, int64_t count,
                   uint32_t* to) {
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(to + r * words(from.width), from.at(head, row + r), from.width * sizeof(Number));
    }
  }
};

// What one thread works in.
template <typename Words>
struct Memory {
  Buffer<uint32_t> queries, weights;
  Buffer<float> scores, high, sums, top, shrink, out;
  Scratch scratch;

  Memory(int64_t words, int64_t width)
      : queries(kQueries * words),
        weights(kQueries * kKeys / Words::kPack),
        scores(kQueries * kKeys),
        high(kQueries * kLanes),
        sums(kQueries * kLanes),
        top(kQueries),
        shrink(kQueries),
        out(kQueries * width),
        scratch{queries.get(), scores.get(), weights.get(), high.get(),
                sums.get(),    top.get(),    shrink.get(),  out.get()} {}
};

template <typename Words>
class Heads {
  using Number = typename Words::Number;

 public:
  // q [B, heads, M, D], k and v [B, heads, N, D]; out [B, M, heads, D] and, if wanted, logsumexp
  // [B, heads, M] of the scaled scores, both dense.
  Heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ActiveTokens& active,
        double scale, const at::Tensor& out, float* logsumexp = nullptr)
      : q_(q),
        k_(k),
        v_(v),
        active_(active),
        words_(Panel<Words>::words(q_.width)),
        width_(Panel<Words>::columns(q_.width)),
        factor_(static_cast<float>(scale * kLog2E)),
        packed_keys_(count() * keys_size()),
        packed_values_(count() * values_size()),
        logsumexp_(logsumexp),
        out_(static_cast<Number*>(out.mutable_data_ptr())) {
    at::parallel_for(0, count(), 1, [this](int64_t begin, int64_t end) {
      for (int64_t head = begin; head < end; ++head) {
        const int64_t image = head / k_.heads, tokens = active_.count[image];
        Panel<Words>::lanes(k_, head, active_.of(image), tokens, keys_of(head));
        Panel<Words>::pairs(v_, head, active_.of(image), tokens, values_of(head));
      }
    });
  }

  int64_t count() const { return q_.batch * q_.heads; }  // of all images
  Memory<Words> memory() const { return {words_, width_}; }

  // Queries [row, row + queries) of a head.
  void attend_to(int64_t head, int64_t row, int64_t queries, const Scratch& s) const {
    Panel<Words>::rows(q_, head, row, queries, s.queries);
    attend<Words>(packed(head), queries, s);
    write_out(head, row, queries, s);
  }

  // The same for at most kKeys keys. Adds probabilities times `share` to map [kQueries, kKeys].
  void attend_with_map(int64_t head, int64_t row, int64_t queries, float share, const Scratch& s,
                       float* map) const {
    Panel<Words>::rows(q_, head, row, queries, s.queries);
    flash::attend_with_map<Words>(packed(head), queries, share, s, map);
    write_out(head, row, queries, s);
  }

 private:
  int64_t keys_size() const { return Panel<Words>::lanes_size(k_.rows, k_.width); }
  int64_t values_size() const { return Panel<Words>::pairs_size(v_.rows, v_.width); }
  uint32_t* keys_of(int64_t head) const { return packed_keys_.get() + head * keys_size(); }
  uint32_t* values_of(int64_t head) const { return packed_values_.get() + head * values_size(); }
  Head packed(int64_t head) const {
    return {keys_of(head), values_of(head), active_.count[head / q_.heads],
            words_,        width_,          factor_};
  }

  void write_out(int64_t head, int64_t row, int64_t queries, const Scratch& s) const {
    for (int64_t r = 0; r < queries; ++r) {
      Number* to = dense_row(out_, q_, head, row + r);
      const float* from = s.out + r * width_;
      const float factor = 1 / s.sums[r * kLanes];
      for (int64_t i = 0; i < q_.width; ++i) to[i] = Words::number(from[i] * factor);
      if (logsumexp_) {
        logsumexp_[head * q_.rows + row + r] =
            (s.top[r] + std::log2(s.sums[r * kLanes])) / static_cast<float>(kLog2E);
      }
    }
  }

  HeadRows<Number> q_, k_, v_;
  const ActiveTokens& active_;
  int64_t words_, width_;
  float factor_;
  Buffer<uint32_t> packed_keys_, packed_values_;
  float* logsumexp_;
  Number* out_;
};

}  // namespace vpd::ops::cpu::flash
