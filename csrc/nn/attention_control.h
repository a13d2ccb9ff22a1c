#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace vpd::nn {

using at::Tensor;

// Cross-attention of some rows made from that of others: the probabilities A_b [M, N] of row b
// become
//   A_b diag(kept_b) + sum over e with rows_e = b of A_{sources_e} transfer_e,
// head by head; what is right of A_b stands for replaced, refined and re-weighted maps alike.
struct CrossControl {
  Tensor kept;      // [B, N]: factor of each token's column
  Tensor rows;      // int64 [E]: rows that receive
  Tensor sources;   // int64 [E]: rows they receive from
  Tensor transfer;  // [E, N, N]: from tokens of the source to tokens of the row
};

// What the attention of some rows of a batch takes from other rows of it, in one call of a network
// (Prompt-to-Prompt, Hertz et al. 2022). Immutable. No matrix of pixels by pixels is ever held, and
// none of pixels by tokens that the call would not hold without it.
struct AttentionControl {
  // int64 [B]: whose queries and keys the self-attention of each row uses, beside its own values.
  std::optional<Tensor> self_source;
  // Only where there are at most so many pixels; everywhere if nullopt.
  std::optional<int64_t> self_positions;
  std::optional<CrossControl> cross;

  // Throws unless it fits `rows` rows of `tokens` tokens.
  void check(int64_t rows, int64_t tokens) const;
  AttentionControl to(at::Device device) const;
  // Whom self-attention over `positions` pixels listens to; null: every row to itself.
  const Tensor* source_at(int64_t positions) const;
};

}  // namespace vpd::nn
