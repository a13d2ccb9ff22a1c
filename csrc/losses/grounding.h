#pragma once
#include <vector>

#include "losses/common.h"
#include "ops/batch_norm.h"

namespace vpd::losses {

// How an image and a caption are compared, see mask_grounding_loss.
enum class GroundingForm {
  kCode,       // as the released code does
  kEquations,  // as the paper says (equations 7 and 8)
};

// "code" or "equations"; throws std::invalid_argument for another word.
GroundingForm parse_grounding_form(const std::string& word);

// Grounding of captions' words in masks (Xu et al. 2023, section 3.4), for several outputs of a
// head: in a batch, images pick their caption by a symmetric contrastive loss, where image and
// caption are as similar as masks z_i and words w_k are. With c = cos(z_i, w_k), N masks, K words:
//   code:      g = 1/K sum_k sum_i softmax_i(scale c) scale c;  (a + b) / 2
//   equations: g = scale/K sum_k sum_i softmax_k(scale c) c;    a + b
// a, the cross-entropies of images that pick a caption, is averaged over those whose caption has a
// word; where none has, over all. b, of captions that pick an image, counts 0 for captions without
// a word, in an average over all.
//   embeddings z [B, N, D] of each output; words [B, K, D]; valid bool [B, K]: real words (those
//   that are not still take part in g); scale [] -> [outputs]
// With a group, the batch is that of all its processes, each with as many images as it has. Each
// then gets the loss of the whole batch, and gradients of its own images that are `size` times
// those of that loss: with the mean over processes that data parallelism takes of gradients, those
// of all weights are right.
at::Tensor mask_grounding_loss(const std::vector<at::Tensor>& embeddings, const at::Tensor& words,
                               const at::Tensor& valid, const at::Tensor& scale, GroundingForm form,
                               const std::optional<ops::ProcessGroup>& group);

}  // namespace vpd::losses
