#pragma once
#include <memory>

#include "core/recompute.h"
#include "nn/conv.h"
#include "nn/res_block.h"
#include "nn/transformer_block.h"

namespace vpd::models {

// What the backward computes again instead of keeping it since the forward: the hidden layers of
// the transformers' feed-forwards, the transformers, every block.
enum class Recompute { kNone, kFeedForward, kAttention, kAll };

// One entry of the original's input_blocks, middle_block or output_blocks.
struct UNetBlock {
  // What is the same for all blocks of a forward.
  struct Call {
    Tensor embedding;                    // [1, S or B, E], of the timestep, through SiLU
    Tensor context;                      // [B, N, context_dim]
    std::optional<Tensor> context_mask;  // bool [B, N]
    std::optional<Tensor> repeat;        // int64 [B]: the stem of each row, until text is met
    Recompute recompute = Recompute::kNone;
    std::shared_ptr<const void> owner;  // keeps the blocks alive until the backward
    std::shared_ptr<const nn::AttentionControl> control;  // null: every row for itself
  };

  // h [S or B, C, H, W]; on the way up also the skip that is concatenated behind it, else
  // undefined. Returns h before the upsampler, then, if wanted, the map of each transformer layer.
  std::vector<Tensor> operator()(const Params& p, const Tensor& h, const Tensor& skip,
                                 const Call& call, nn::MapRequest request) const;
  Tensor upsampled(const Params& p, const Tensor& h, const Call& call) const;
  // [h, skip], with as many rows as h has.
  static Tensor joined(const Tensor& h, const Tensor& skip, const std::optional<Tensor>& repeat);
  std::string transformer_name() const { return name + ".1"; }

  std::string name;  // "input_blocks.4"
  int64_t level;
  SlotRange own = {};                   // its parameters
  std::optional<nn::Conv2d> conv = {};  // the first convolution, or the downsampler
  std::optional<nn::ResBlock> res = {};
  std::optional<nn::SpatialTransformer> transformer = {};
  std::optional<nn::ResBlock> res2 = {};  // middle only
  std::optional<nn::Conv2d> up = {};      // after nearest x2
  bool is_tap = false;  // its output is the level's feature map: the level's last block without an
                        // upsampler
};

}  // namespace vpd::models
