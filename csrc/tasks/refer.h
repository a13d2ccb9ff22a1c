#pragma once
#include <string>
#include <vector>

#include "models/autoencoder.h"
#include "models/clip_text.h"
#include "models/refer_decoder.h"
#include "models/text_adapter.h"
#include "models/unet.h"
#include "tasks/refer_config.h"
#include "text/tokenizer.h"

namespace vpd::tasks {

// Referring segmentation: one image, one sentence, one mask (VPD; Zhao et al. 2023, section 4.3).
// From the same tensor it computes what vpd.ReferSegmenter computes, bit for bit on the CPU.
// Calls may run at the same time.
class ReferSegmenter {
 public:
  // folder: config.json and model.safetensors, as vpd.load takes and `vpd train` writes. Its
  // foundation, if it has one, and merges.txt are looked for in the folder, beside it and in `zoo`;
  // vocabulary: where merges.txt is instead (text::find_merges). Throws std::invalid_argument and
  // std::system_error.
  explicit ReferSegmenter(const std::string& folder, const std::string& zoo = "",
                          const std::string& vocabulary = "");
  ReferSegmenter(const ReferSegmenter&) = delete;

  const ReferConfig& config() const { return config_; }
  const text::Tokenizer& tokenizer() const { return tokenizer_; }

  // Scores of background and object, float [B, 2, H, W], of B sentences about one image. image:
  // float [1, 3, H, W] in [-1, 1], H and W multiples of the autoencoder's stride times the U-Net's;
  // trained on config().image_size squared.
  Tensor logits(const Tensor& image, const std::vector<std::string>& texts) const;

 private:
  ReferSegmenter(const ReferModel& model, const std::vector<std::string>& places,
                 const std::string& vocabulary);

  ReferConfig config_;
  models::AutoencoderKL vae_;
  models::CLIPTextEncoder text_;
  models::UNet unet_;
  models::TextAdapter adapter_;
  models::ReferDecoder decoder_;
  text::Tokenizer tokenizer_;
  std::vector<Tensor> vae_weights_;
  std::vector<Tensor> text_weights_;
  std::vector<Tensor> unet_weights_;
  std::vector<Tensor> adapter_weights_;
  std::vector<Tensor> decoder_weights_;
};

// How likely each pixel belongs to the object, float [B, *size] in [0, 1], from scores [B, 2, h,
// w]; the mask is where it exceeds one half.
Tensor probability(const Tensor& logits, at::IntArrayRef size);

}  // namespace vpd::tasks
