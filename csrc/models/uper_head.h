#pragma once
#include "core/params.h"
#include "nn/conv_norm.h"

namespace vpd::models {

struct UperNetHeadConfig {
  std::vector<int64_t> in_channels;  // of the feature maps, fine to coarse
  int64_t num_classes = 0;
  int64_t channels = 512;
  std::vector<int64_t> pool_scales = {1, 2, 3, 6};  // side of the grid that each pooling leaves
  double dropout = 0.1;  // probability that a channel is zero in training
};

// The head of UperNet (Xiao et al. 2018, Unified Perceptual Parsing): pyramid pooling (Zhao et al.
// 2017) of the coarsest map, a feature pyramid on top of it, and all maps joined at the size of the
// finest. Keys are mmsegmentation's: conv_seg.*, psp_modules.i.1.{conv,bn}.*, and
// {bottleneck, lateral_convs.i, fpn_convs.i, fpn_bottleneck}.{conv,bn}.*
class UperNetHead {
 public:
  explicit UperNetHead(UperNetHeadConfig config);
  UperNetHead(const UperNetHead&) = delete;

  const ParamTable& table() const { return table_; }
  // features, fine to coarse, [B, in_channels[i], H_i, W_i] of any sizes -> logits [B, num_classes,
  // H_0, W_0].
  Tensor forward(const Params& p, const std::vector<Tensor>& features, const nn::Mode& mode) const;
  // The pyramid pooling alone, of the coarsest map: [B, in_channels.back(), H, W] -> [B, channels,
  // H, W].
  Tensor pool(const Params& p, const Tensor& coarsest, const nn::Mode& mode) const;

 private:
  Tensor pooled(const Params& p, const Tensor& x, const nn::Mode& mode) const;

  UperNetHeadConfig config_;
  ParamTable table_;
  nn::Conv1x1 conv_seg_;
  std::vector<nn::ConvNorm> psp_modules_;
  nn::ConvNorm bottleneck_;
  std::vector<nn::ConvNorm> lateral_convs_;
  std::vector<nn::ConvNorm> fpn_convs_;
  nn::ConvNorm fpn_bottleneck_;
};

struct FCNHeadConfig {
  int64_t in_channels = 0;  // of the feature map it reads
  int64_t num_classes = 0;
  int64_t channels = 256;
  int64_t num_convs = 1;
  int64_t in_index = 2;  // which feature map it reads, fine to coarse
  double dropout = 0.1;  // probability that a channel is zero while training
};

// A fully convolutional head on one map (Long et al. 2015), the auxiliary head beside UperNet. Keys
// are mmsegmentation's: conv_seg.*, convs.i.{conv,bn}.*
class FCNHead {
 public:
  explicit FCNHead(FCNHeadConfig config);
  FCNHead(const FCNHead&) = delete;

  const ParamTable& table() const { return table_; }
  // Of features, fine to coarse, map in_index [B, in_channels, H, W] -> logits [B, num_classes, H,
  // W].
  Tensor forward(const Params& p, const std::vector<Tensor>& features, const nn::Mode& mode) const;

 private:
  FCNHeadConfig config_;
  ParamTable table_;
  nn::Conv1x1 conv_seg_;
  std::vector<nn::ConvNorm> convs_;
};

}  // namespace vpd::models
