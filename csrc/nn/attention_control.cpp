#include "nn/attention_control.h"

#include "core/check.h"

namespace vpd::nn {

namespace {

// Whether a tensor of row numbers is int64 [count], of rows that are there.
void check_rows(const char* name, const Tensor& t, int64_t count, int64_t rows) {
  VPD_CHECK(t.scalar_type() == at::kLong && t.dim() == 1 && t.size(0) == count,
            "attention control: ", name, " must be int64 [", count, "], got ", t.dtype(), " ",
            t.sizes());
  if (!has_values(t)) return;
  VPD_CHECK(t.min().item<int64_t>() >= 0 && t.max().item<int64_t>() < rows,
            "attention control: ", name, " must be rows in 0..", rows - 1, ", got ",
            t.min().item<int64_t>(), " to ", t.max().item<int64_t>());
}

void check_numbers(const char* name, const Tensor& t, at::IntArrayRef sizes) {
  VPD_CHECK(t.is_floating_point() && t.sizes() == sizes, "attention control: ", name,
            " must be floating point ", sizes, ", got ", t.dtype(), " ", t.sizes());
}

}  // namespace

void AttentionControl::check(int64_t rows, int64_t tokens) const {
  if (self_source) check_rows("self_source", *self_source, rows, rows);
  if (!cross) return;
  check_numbers("kept", cross->kept, {rows, tokens});
  const int64_t edits = cross->rows.dim() == 1 ? cross->rows.size(0) : 0;
  check_rows("rows", cross->rows, edits, rows);
  check_rows("sources", cross->sources, edits, rows);
  check_numbers("transfer", cross->transfer, {edits, tokens, tokens});
}

AttentionControl AttentionControl::to(at::Device device) const {
  AttentionControl moved = *this;
  if (self_source) moved.self_source = self_source->to(device);
  if (cross) {
    moved.cross = {cross->kept.to(device), cross->rows.to(device), cross->sources.to(device),
                   cross->transfer.to(device)};
  }
  return moved;
}

const Tensor* AttentionControl::source_at(int64_t positions) const {
  const bool applies = self_source && positions <= self_positions.value_or(positions);
  return applies ? &*self_source : nullptr;
}

}  // namespace vpd::nn
