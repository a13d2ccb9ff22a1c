#pragma once
#include "core/params.h"
#include "nn/conv_norm.h"

namespace vpd::models {

struct FPNConfig {
  std::vector<int64_t> in_channels;  // of the feature maps, fine to coarse
  int64_t out_channels = 256;
};

// Feature pyramid network (Lin et al. 2017) as mmsegmentation has it: maps of one width, each
// joined by what the coarser ones know. Keys: lateral_convs.i.conv.*, fpn_convs.i.conv.*
class FPN {
 public:
  explicit FPN(FPNConfig config);
  FPN(const FPN&) = delete;

  const ParamTable& table() const { return table_; }
  // features, fine to coarse, [B, in_channels[i], H_i, W_i] of any sizes -> as many maps [B,
  // out_channels, H_i, W_i].
  std::vector<Tensor> forward(const Params& p, const std::vector<Tensor>& features) const;

 private:
  FPNConfig config_;
  ParamTable table_;
  std::vector<nn::Conv1x1> lateral_convs_;
  std::vector<nn::Conv2d> fpn_convs_;
};

struct SemanticFPNHeadConfig {
  std::vector<int64_t> in_channels;  // of the feature maps, fine to coarse
  int64_t num_classes = 0;
  int64_t channels = 256;
  double dropout = 0.1;  // probability that a channel is zero while training
};

// The head of Semantic FPN (Kirillov et al. 2019, Panoptic Feature Pyramid Networks) as
// mmsegmentation has it: every map, convolved and doubled in size until it is as fine as the first,
// summed and classified. Keys: conv_seg.*, scale_heads.i.j.{conv,bn}.*, j even.
class SemanticFPNHead {
 public:
  explicit SemanticFPNHead(SemanticFPNHeadConfig config);
  SemanticFPNHead(const SemanticFPNHead&) = delete;

  const ParamTable& table() const { return table_; }
  // features, fine to coarse, [B, in_channels[i], H_i, W_i], each about half as large as the one
  // before -> logits [B, num_classes, H_0, W_0].
  Tensor forward(const Params& p, const std::vector<Tensor>& features, const nn::Mode& mode) const;

 private:
  SemanticFPNHeadConfig config_;
  ParamTable table_;
  nn::Conv1x1 conv_seg_;
  std::vector<std::vector<nn::ConvNorm>> scale_heads_;
};

}  // namespace vpd::models
