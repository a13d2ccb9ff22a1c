#pragma once
#include <array>

#include "core/params.h"
#include "nn/conv_norm.h"

namespace vpd::models {

struct DepthHeadConfig {
  std::vector<int64_t> dims = {320, 640, 1280, 1280};  // of the four feature maps, fine to coarse
  int64_t embed_dim = 192;
  std::vector<int64_t> num_filters = {32, 32, 32};  // of the transposed convolutions
  double max_depth = 10;                            // metres
  int64_t norm_groups = 16;
};

// Monocular depth on a U-Net's features, as VPD has it (Zhao et al. 2023, section 4.4): all maps on
// the grid of the second coarsest, eight times embed_dim wide; transposed convolutions and bilinear
// steps up from there. Keys: encoder.{layer1,layer2,out_layer}.*, decoder.deconv_layers.*,
// decoder.conv_layers.*, last_layer_depth.*
class DepthHead {
 public:
  // Rows and columns to drop at the bottom and right.
  using Crop = std::array<int64_t, 2>;

  explicit DepthHead(DepthHeadConfig config);
  DepthHead(const DepthHead&) = delete;

  const ParamTable& table() const { return table_; }
  // features, fine to coarse, [B, dims[i], 8h / 2^i, 8w / 2^i] -> [B, 8 * embed_dim, 2h, 2w].
  Tensor encode(const Params& p, const std::vector<Tensor>& features) const;
  // What encode returned, without the cropped rows and columns: [B, 8 * embed_dim, H, W] -> metres,
  // [B, 1, s * H, s * W], s = 4 * 2^num_filters.size(), in (0, max_depth); float32 at least.
  Tensor decode(const Params& p, const Tensor& encoded, Crop crop, const nn::Mode& mode) const;
  Tensor forward(const Params& p, const std::vector<Tensor>& features, Crop crop,
                 const nn::Mode& mode) const;

 private:
  // Twice the size: a transposed convolution of stride 2, batch norm, ReLU.
  struct Deconv {
    Slot weight;
    nn::BatchNorm2d norm;
  };

  DepthHeadConfig config_;
  ParamTable table_;
  nn::Conv2d fine_in_;  // encoder.layer1.0
  nn::GroupNorm fine_norm_;
  nn::Conv2d fine_out_;  // encoder.layer1.3
  nn::Conv2d middle_;    // encoder.layer2.0
  nn::Conv1x1 out_;      // encoder.out_layer.0
  nn::GroupNorm out_norm_;
  std::vector<Deconv> deconvs_;
  nn::Conv2d conv_;  // decoder.conv_layers.0
  nn::BatchNorm2d conv_norm_;
  nn::Conv2d last_;   // last_layer_depth.0
  nn::Conv2d depth_;  // last_layer_depth.2
};

}  // namespace vpd::models
