#pragma once
#include "core/params.h"
#include "nn/linear.h"

namespace vpd::models {

struct ImplicitCaptionerConfig {
  int64_t dim = 768;                       // of the context
  int64_t image_dim = 768;                 // of the image's embedding
  int64_t tokens = 77;                     // of the context
  std::optional<int64_t> time_dim = 1280;  // of the time embedding; none: it is left alone
  bool gated = true;                       // false: an MLP instead of the gate
  int64_t time_steps = 1;                  // timesteps that have a bias of their own
};

// What a captioner makes of a batch of images.
struct ImplicitCaption {
  Tensor context;  // [B, tokens, dim]
  // [B, time_dim], to be added to the time embedding; [B, time_steps, time_dim] of several
  std::optional<Tensor> time_bias;
};

// ODISE's implicit captioner (Xu et al. 2023, equation 3): an image's CLIP embedding v takes the
// place of a caption.
//   gated, as its code has it:  context = empty + tanh(alpha) * (W v + P), alpha starts at 0
//   MLP, as its equation has it: context = MLP(v) + P: the MLP's one vector and a place for each
//                                token, without which all tokens were one
// and, where time_dim is given, time_bias = tanh(alpha_t) * (W_t v + P_t). Keys: alpha_cond,
// clip_project.linear.*, clip_project.positional_embedding (or mlp.fc1.*, mlp.fc2.*,
// mlp.positional_embedding); alpha_cond_time_embed, time_embed_project.*
class ImplicitCaptioner {
 public:
  explicit ImplicitCaptioner(ImplicitCaptionerConfig config);
  ImplicitCaptioner(const ImplicitCaptioner&) = delete;

  const ParamTable& table() const { return table_; }
  // image [B, image_dim]; empty [tokens, dim] or [1 or B, tokens, dim], the text encoder's states
  // of "", which the gate alone reads
  ImplicitCaption forward(const Params& p, const Tensor& image,
                          const std::optional<Tensor>& empty) const;

 private:
  // A gate on W v + P.
  struct Gate {
    Slot alpha;
    nn::Linear linear;
    Slot positions;
    // image [B, 1, image_dim] -> [B, positions, dim]
    Tensor operator()(const Params& p, const Tensor& image) const;
  };
  Gate gate(const char* alpha, std::vector<int64_t> alpha_shape, const char* project,
            int64_t tokens, int64_t dim);

  ImplicitCaptionerConfig config_;
  ParamTable table_;
  std::optional<Gate> context_;
  std::optional<nn::Linear> fc1_;
  std::optional<nn::Linear> fc2_;
  std::optional<Slot> positions_;
  std::optional<Gate> time_;
};

}  // namespace vpd::models
