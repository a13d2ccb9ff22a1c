#include "diffusion/guidance.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/constant.h"

namespace vpd::diffusion {

namespace {

void check(const Conditions& c) {
  VPD_CHECK(c.text.dim() == 3 && c.text.size(0) > 0,
            "guidance: text states must be [B, N, C], got ", c.text.sizes());
  VPD_CHECK(
      !c.empty || (c.empty->dim() == 3 && c.empty->sizes().slice(1) == c.text.sizes().slice(1) &&
                   (c.empty->size(0) == 1 || c.empty->size(0) == c.text.size(0))),
      "guidance: states of the empty sentence must be [", c.text.size(0), " or 1, ", c.text.size(1),
      ", ", c.text.size(2), "], got ", c.empty ? c.empty->sizes() : at::IntArrayRef());
  VPD_CHECK(!c.image || (c.image->dim() == 4 && c.image->size(0) == c.text.size(0)),
            "guidance: image latents must be [", c.text.size(0), ", C, h, w], got ",
            c.image ? c.image->sizes() : at::IntArrayRef());
  const auto count = static_cast<int64_t>(c.text_guidance.size());
  VPD_CHECK(count == 1 || count == c.text.size(0), "guidance: text_guidance must be one number or ",
            c.text.size(0), ", one for each sample, got ", count);
  for (const double text_guidance : c.text_guidance) {
    VPD_CHECK(std::isfinite(text_guidance) && std::isfinite(c.image_guidance),
              "guidance: both must be finite, got ", text_guidance, " and ", c.image_guidance);
  }
  VPD_CHECK(c.image || c.image_guidance == 1, "guidance: image_guidance needs image latents, got ",
            c.image_guidance);
}

// One number if all are equal.
std::vector<double> merged(std::vector<double> values) {
  const bool equal = std::all_of(values.begin(), values.end(),
                                 [&](double value) { return value == values.front(); });
  if (equal) values.resize(1);
  return values;
}

}  // namespace

Guidance::Guidance(const Conditions& c) : samples_(c.text.dim() == 3 ? c.text.size(0) : 0) {
  check(c);
  struct Part {
    std::vector<double> share;
    bool text;
    bool image;
  };
  std::vector<Part> parts;
  const auto add = [&parts](const Part& part) {
    const bool counts =
        std::any_of(part.share.begin(), part.share.end(), [](double share) { return share != 0; });
    if (counts) parts.push_back(part);
  };
  const std::vector<double> told = merged(c.text_guidance);
  const auto less = [&told](double whole) {
    std::vector<double> rest;
    for (const double share : told) rest.push_back(whole - share);
    return rest;
  };
  add({told, true, c.image.has_value()});
  // With a text alone there is no term for the image alone.
  if (c.image) add({less(c.image_guidance), false, true});
  add({c.image ? std::vector<double>{1 - c.image_guidance} : less(1), false, false});

  const at::Tensor each = at::arange(samples_, c.text.options().dtype(at::kLong));
  std::vector<at::Tensor> contexts, indices, images;
  // Which of the two kinds of latents, with and without the image, are seen at all.
  bool with = false, without = false;
  for (const Part& part : parts) (part.image ? with : without) = true;
  for (const Part& part : parts) {
    VPD_CHECK(part.text || c.empty,
              "guidance: other values than 1 need the states of the empty sentence");
    contexts.push_back(part.text ? c.text : c.empty->to(c.text.options()).expand_as(c.text));
    indices.push_back(with && !part.image ? each + samples_ : each);
    shares_.push_back(part.share);
  }
  context_ = at::cat(contexts);
  has_text_ = parts.front().text;
  const int64_t kinds = (with ? 1 : 0) + (without ? 1 : 0);
  if (static_cast<int64_t>(parts.size()) != kinds) image_index_ = at::cat(indices);
  if (!c.image) return;
  if (with) images.push_back(*c.image);
  if (without) images.push_back(at::zeros_like(*c.image));
  images_ = at::cat(images);
}

at::Tensor Guidance::latents(const at::Tensor& x) const {
  VPD_CHECK(x.dim() >= 1 && x.size(0) == samples_, "guidance: expected ", samples_,
            " samples, got ", x.sizes());
  VPD_CHECK(!images_ || (x.dim() == 4 && x.sizes().slice(2) == images_->sizes().slice(2)),
            "guidance: samples must be [B, C, h, w] of the image latents' size, got ", x.sizes(),
            " beside ", images_ ? images_->sizes() : at::IntArrayRef());
  if (!images_) return x.to(context_.scalar_type());
  const at::Tensor seen = images_->size(0) == samples_ ? x : at::cat({x, x});
  return at::cat({seen, images_->to(x.options())}, 1).to(context_.scalar_type());
}

at::Tensor Guidance::combine(const at::Tensor& predictions) const {
  const auto blocks = static_cast<int64_t>(shares_.size());
  VPD_CHECK(predictions.dim() >= 1 && predictions.size(0) == context_.size(0),
            "guidance: predictions must have ", context_.size(0), " rows, got ",
            predictions.sizes());
  const auto type = predictions.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto parts = predictions.to(type).chunk(blocks);
  const auto weighted = [&](size_t block) -> at::Tensor {
    const std::vector<double>& share = shares_[block];
    if (share.size() == 1) return share[0] == 1 ? parts[block] : share[0] * parts[block];
    std::vector<int64_t> sizes(static_cast<size_t>(parts[block].dim()), 1);
    sizes[0] = samples_;
    return constant(share, parts[block].options()).view(sizes) * parts[block];
  };
  at::Tensor sum = weighted(0);
  for (size_t i = 1; i < shares_.size(); ++i) sum = sum + weighted(i);
  return sum;
}

}  // namespace vpd::diffusion
