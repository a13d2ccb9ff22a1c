#pragma once
#include "core/params.h"
#include "nn/conv.h"
#include "nn/norm.h"

namespace vpd::models {

struct ReferDecoderConfig {
  std::vector<int64_t> dims;  // channels of the feature maps, fine to coarse
  int64_t hidden = 640;
};

// The mask decoder of LAVT (Yang et al. 2022) as VPD uses it: from coarse to fine, upsample
// (bilinear, corners aligned), concatenate the next map, twice conv-BN-ReLU; at last a 1x1
// convolution to background and target. Keys for four maps: conv1_4, bn1_4, conv2_4, bn2_4 (the two
// coarsest maps), ..._3, ..._2 (the finest), conv1_1.
class ReferDecoder {
 public:
  explicit ReferDecoder(ReferDecoderConfig config);
  ReferDecoder(const ReferDecoder&) = delete;

  const ParamTable& table() const { return table_; }
  // features, fine to coarse, [B, dims[i], H_i, W_i] of any sizes -> logits [B, 2, H_0, W_0].
  // When training, batch norms use the batch's statistics and move the running ones in place; with
  // a group, the batch is that of all its processes.
  Tensor forward(const Params& p, const std::vector<Tensor>& features, bool training,
                 const ops::ProcessGroup* group = nullptr) const;

 private:
  struct Stage {
    nn::Conv2d conv1;
    nn::BatchNorm2d bn1;
    nn::Conv2d conv2;
    nn::BatchNorm2d bn2;
  };

  ReferDecoderConfig config_;
  ParamTable table_;
  std::vector<Stage> stages_;  // coarse to fine
  nn::Conv1x1 out_;
};

}  // namespace vpd::models
