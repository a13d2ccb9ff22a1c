#pragma once
// Keys and values of heads, laid out as flash_attention_kernel.h reads them, and queries attending
// to them.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cstring>
#include <vector>

#include "ops/cpu/active_tokens.h"
#include "ops/cpu/flash_attention_kernel.h"
#include "ops/cpu/matmul.h"

namespace vpd::ops::cpu::flash {

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
  static constexpr int64_t kPack = Words::kPack;

 public:
  // q [B, heads, M, D], k and v [B, heads, N, D]; out [B, M, heads, D], dense.
  Heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ActiveTokens& active,
        double scale, const at::Tensor& out)
      : q_(q),
        k_(k),
        v_(v),
        active_(active),
        words_(padded_to(q_.width, kPack) / kPack),
        width_(padded_to(q_.width, kLanes)),
        keys_(padded_to(k_.rows, kLanes)),
        factor_(static_cast<float>(scale * 1.4426950408889634)),
        packed_keys_(count() * keys_ * words_),
        packed_values_(count() * keys_ / kPack * width_),
        out_(static_cast<Number*>(out.mutable_data_ptr())) {
    at::parallel_for(0, count(), 1, [this](int64_t begin, int64_t end) {
      for (int64_t head = begin; head < end; ++head) {
        pack_keys(head);
        pack_values(head);
      }
    });
  }

  int64_t count() const { return q_.batch * q_.heads; }  // of all images
  Memory<Words> memory() const { return {words_, width_}; }

  // Queries [row, row + queries) of a head.
  void attend_to(int64_t head, int64_t row, int64_t queries, const Scratch& s) const {
    read_queries(head, row, queries, s);
    attend<Words>(packed(head), queries, s);
    write_out(head, row, queries, s);
  }

  // The same for at most kKeys keys. Adds probabilities times `share` to map [kQueries, kKeys].
  void attend_with_map(int64_t head, int64_t row, int64_t queries, float share, const Scratch& s,
                       float* map) const {
    read_queries(head, row, queries, s);
    flash::attend_with_map<Words>(packed(head), queries, share, s, map);
    write_out(head, row, queries, s);
  }

 private:
  uint32_t* keys_of(int64_t head) const { return packed_keys_.get() + head * keys_ * words_; }
  uint32_t* values_of(int64_t head) const {
    return packed_values_.get() + head * keys_ / kPack * width_;
  }
  Head packed(int64_t head) const {
    return {keys_of(head), values_of(head), active_.count[head / q_.heads],
            words_,        width_,          factor_};
  }

  // The places of keys that are not there, and of an odd last column, stay zero.
  void pack_keys(int64_t head) const {
    uint32_t* to = keys_of(head);
    const int64_t image = head / k_.heads, *index = active_.of(image);
    for (int64_t row = 0; row < active_.count[image]; ++row) {
      const Number* from = k_.at(head, index[row]);
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
    const int64_t image = head / k_.heads, *index = active_.of(image);
    for (int64_t row = 0; row < active_.count[image]; ++row) {
      const Number* from = v_.at(head, index[row]);
      Number* line = to + row / kPack * kPack * width_ + row % kPack;
      for (int64_t i = 0; i < v_.width; ++i) line[i * kPack] = from[i];
    }
  }

  void read_queries(int64_t head, int64_t row, int64_t queries, const Scratch& s) const {
    for (int64_t r = 0; r < queries; ++r) {
      std::memcpy(s.queries + r * words_, q_.at(head, row + r), q_.width * sizeof(Number));
    }
  }

  void write_out(int64_t head, int64_t row, int64_t queries, const Scratch& s) const {
    const int64_t image = head / q_.heads;
    for (int64_t r = 0; r < queries; ++r) {
      Number* to = out_ + ((image * q_.rows + row + r) * q_.heads + head % q_.heads) * q_.width;
      const float* from = s.out + r * width_;
      const float factor = 1 / s.sums[r * kLanes];
      for (int64_t i = 0; i < q_.width; ++i) to[i] = Words::number(from[i] * factor);
    }
  }

  HeadRows<Number> q_, k_, v_;
  const ActiveTokens& active_;
  int64_t words_, width_, keys_;
  float factor_;
  Buffer<uint32_t> packed_keys_, packed_values_;
  Number* out_;
};

}  // namespace vpd::ops::cpu::flash
