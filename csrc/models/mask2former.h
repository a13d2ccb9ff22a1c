#pragma once
#include "models/masked_decoder.h"
#include "models/pixel_decoder.h"

namespace vpd::models {

// The head of Mask2Former (Cheng et al. 2022): feature maps to a fixed number of masks, each with a
// class. Keys are the original's below "sem_seg_head.": pixel_decoder.*, predictor.*
class Mask2FormerHead {
 public:
  explicit Mask2FormerHead(Mask2FormerConfig config);
  Mask2FormerHead(const Mask2FormerHead&) = delete;

  const ParamTable& table() const { return table_; }
  // The table's start, but the deformable attention's points spread.
  std::vector<Tensor> initialise(
      const at::Device& device, at::ScalarType dtype,
      const std::optional<at::Generator>& generator = std::nullopt) const;
  // features, fine to coarse, [B, in_channels[i], H_i, W_i], none larger than the one before.
  PixelFeatures pixels(const Params& p, const std::vector<Tensor>& features) const;
  // What queries make of pixels(), or of the like from elsewhere.
  MaskedDecoderOutput decode(const Params& p, const PixelFeatures& features, bool last_only) const;
  const Mask2FormerConfig& config() const { return config_; }

 protected:
  // Where a head that is more than this one declares the rest.
  Scope root() { return Scope(table_); }

 private:
  Mask2FormerConfig config_;
  ParamTable table_;
  PixelDecoder pixel_decoder_;
  MaskedDecoder predictor_;
};

}  // namespace vpd::models
