#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace vpd::diffusion {

// What a denoiser is told: B samples.
struct Conditions {
  at::Tensor text;                  // states [B, N, C]
  std::optional<at::Tensor> empty;  // states of the empty sentence, [B or 1, N, C]
  std::optional<at::Tensor> image;  // latents [B, C', h, w] that go behind the sample's channels
  std::vector<double> text_guidance = {1};  // one for all, or one for each sample
  double image_guidance = 1;
};

// Classifier-free guidance with one condition (Ho and Salimans 2022) or with text and image (Brooks
// et al. 2023, equation 3),
//   e = e(0, 0) + image_guidance (e(image, 0) - e(0, 0))
//               + text_guidance (e(image, text) - e(image, 0)),
// as one batch of rows for the U-Net. A prediction whose share of the sum is 0 is not computed:
// with both at 1 there are B rows, and the result is exactly the conditional prediction.
class Guidance {
 public:
  explicit Guidance(const Conditions& conditions);

  const at::Tensor& context() const { return context_; }  // [R, N, C], R = B, 2 B or 3 B
  int64_t samples() const { return samples_; }            // B
  // Whether the first B rows are told the text; no others ever are.
  bool has_text() const { return has_text_; }
  // int64 [R], each row's latent; none where there are as many latents as rows.
  const std::optional<at::Tensor>& image_index() const { return image_index_; }
  // [B, c, h, w] -> what the U-Net sees, [B or 2 B, c + C', h, w] in the context's dtype
  at::Tensor latents(const at::Tensor& x) const;
  // [R, ...] -> [B, ...], at least float32
  at::Tensor combine(const at::Tensor& predictions) const;

 private:
  int64_t samples_;                   // B
  std::optional<at::Tensor> images_;  // beside the samples, [B or 2 B, C', h, w]
  at::Tensor context_;
  std::optional<at::Tensor> image_index_;
  bool has_text_ = false;
  std::vector<std::vector<double>> shares_;  // of each block of B rows: one for all, or B
};

}  // namespace vpd::diffusion
