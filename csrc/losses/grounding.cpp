#include "losses/grounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include "core/check.h"
#include "ops/collectives.h"
#include "ops/unit.h"

namespace vpd::losses {
namespace {
using at::Tensor;

constexpr const char* kName = "mask_grounding_loss";

void check(const std::vector<Tensor>& embeddings, const Tensor& words, const Tensor& valid,
           const Tensor& scale) {
  VPD_CHECK(!embeddings.empty(), kName, ": expected embeddings of at least one output, got none");
  VPD_CHECK(words.dim() == 3 && words.size(1) > 0 && words.is_floating_point(), kName,
            ": words must be floating point [B, K, D], got ", words.dtype(), " ", words.sizes());
  VPD_CHECK(valid.scalar_type() == at::kBool && valid.sizes() == words.sizes().slice(0, 2), kName,
            ": valid must be bool ", words.sizes().slice(0, 2), ", got ", valid.dtype(), " ",
            valid.sizes());
  VPD_CHECK(scale.dim() == 0 && scale.is_floating_point(), kName,
            ": scale must be a floating-point scalar, got ", scale.dtype(), " ", scale.sizes());
  for (const Tensor& z : embeddings) {
    VPD_CHECK(z.dim() == 3 && z.is_floating_point() && z.size(0) == words.size(0) &&
                  z.size(1) > 0 && z.size(2) == words.size(2) && z.sizes() == embeddings[0].sizes(),
              kName, ": embeddings must be floating point [", words.size(0), ", N, ", words.size(2),
              "], of one shape for all outputs, got ", z.dtype(), " ", z.sizes());
  }
}

// A batch's unit vectors.
struct Batch {
  Tensor masks;  // [outputs, B, N, D]
  Tensor words;  // [B, K, D]
  Tensor valid;  // [B], 1 where the caption has a word, 0 elsewhere
};

// The batch of all processes, in one exchange.
Batch gathered(const Batch& own, const ops::ProcessGroup& group) {
  const Tensor rows = at::cat(
      {own.masks.transpose(0, 1).flatten(1), own.words.flatten(1), own.valid.unsqueeze(1)}, 1);
  const int64_t of_words = own.words.size(1) * own.words.size(2);
  const std::vector<Tensor> all =
      ops::gather_rows(rows, group)
          .split_with_sizes({rows.size(1) - of_words - 1, of_words, 1}, /*dim=*/1);
  return {all[0]
              .unflatten(1, {own.masks.size(0), own.masks.size(2), own.masks.size(3)})
              .transpose(0, 1),
          all[1].unflatten(1, own.words.sizes().slice(1)), all[2].squeeze(1)};
}

// masks [B, N, D], words [B, K, D] -> [B images, B captions]
Tensor similarity(const Tensor& masks, const Tensor& words, const Tensor& scale,
                  GroundingForm form) {
  const Tensor cosines = masks.flatten(0, 1)
                             .matmul(words.flatten(0, 1).t())
                             .unflatten(1, words.sizes().slice(0, 2))
                             .unflatten(0, masks.sizes().slice(0, 2));  // [B, N, B, K]
  const Tensor s = scale * cosines;
  if (form == GroundingForm::kCode) return (s.softmax(1) * s).sum(1).mean(-1);
  return (s.softmax(3) * s).sum(at::IntArrayRef{1, 3}) / static_cast<double>(words.size(1));
}

Tensor loss(const Tensor& g, const Tensor& valid, GroundingForm form) {
  const auto own = [&](int64_t dim) { return -at::log_softmax(g, dim).diagonal(); };
  const Tensor weight = at::where(valid.any(), valid, at::ones_like(valid));
  const Tensor caption = (own(1) * weight).sum() / weight.sum();
  const Tensor image = (own(0) * valid).mean();
  return (form == GroundingForm::kCode ? 0.5 : 1.0) * (caption + image);
}

}  // namespace

GroundingForm parse_grounding_form(const std::string& word) {
  if (word == "code") return GroundingForm::kCode;
  if (word == "equations") return GroundingForm::kEquations;
  fail(kName, ": form must be 'code' or 'equations', got '", word, "'");
}

Tensor mask_grounding_loss(const std::vector<Tensor>& embeddings, const Tensor& words,
                           const Tensor& valid, const Tensor& scale, GroundingForm form,
                           const std::optional<ops::ProcessGroup>& group) {
  check(embeddings, words, valid, scale);
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const Tensor masks = ops::unit(widened(at::stack(embeddings)));
  Batch batch{masks, ops::unit(widened(words).to(masks.scalar_type())),
              valid.any(1).to(masks.scalar_type())};
  if (group) batch = gathered(batch, *group);
  VPD_CHECK(batch.words.size(0) > 0, kName, ": expected at least one image, got none");
  std::vector<Tensor> values;
  for (const Tensor& own : batch.masks.unbind(0)) {
    values.push_back(loss(similarity(own, batch.words, widened(scale), form), batch.valid, form));
  }
  return at::stack(values);
}

}  // namespace vpd::losses
