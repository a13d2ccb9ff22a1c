#include "losses/mask2former.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/topk.h>

#include <algorithm>

#include "core/check.h"
#include "losses/matching.h"
#include "losses/point_samples.h"

namespace vpd::losses {

using at::Tensor;

namespace {

constexpr const char* kName = "mask2former_loss";

struct Batch {
  const std::vector<Tensor>& labels;
  const std::vector<Tensor>& targets;
  int64_t images, queries, classes;

  // Targets that a query is given to, of all images.
  int64_t matched() const {
    int64_t sum = 0;
    for (const Tensor& own : labels) sum += std::min(own.size(0), queries);
    return sum;
  }
  int64_t objects() const {
    int64_t sum = 0;
    for (const Tensor& own : labels) sum += own.size(0);
    return sum;
  }
};

void check_output(const Tensor& logits, const Tensor& masks, const Batch& batch) {
  VPD_CHECK(logits.dim() == 3 && logits.is_floating_point() && logits.size(0) == batch.images &&
                logits.size(1) == batch.queries && logits.size(2) == batch.classes + 1,
            kName, ": logits must be floating point [", batch.images, ", ", batch.queries, ", ",
            batch.classes + 1, "], got ", logits.dtype(), " ", logits.sizes());
  VPD_CHECK(masks.dim() == 4 && masks.is_floating_point() && masks.size(0) == batch.images &&
                masks.size(1) == batch.queries && masks.size(2) > 0 && masks.size(3) > 0,
            kName, ": masks must be floating point [", batch.images, ", ", batch.queries,
            ", h, w], got ", masks.dtype(), " ", masks.sizes());
}

void check_image(const char* name, const Tensor& labels, const Tensor& targets, int64_t classes,
                 at::Device device) {
  VPD_CHECK(labels.dim() == 1 && labels.scalar_type() == at::kLong, name,
            ": labels of an image must be int64 [M], got ", labels.dtype(), " ", labels.sizes());
  VPD_CHECK(targets.dim() == 3 && targets.size(0) == labels.size(0) && targets.size(1) > 0 &&
                targets.size(2) > 0 &&
                (targets.is_floating_point() || targets.scalar_type() == at::kBool ||
                 targets.scalar_type() == at::kByte),
            name, ": masks of an image with ", labels.size(0),
            " labels must be bool, uint8 or floating point [", labels.size(0), ", H, W], got ",
            targets.dtype(), " ", targets.sizes());
  VPD_CHECK(labels.device() == device && targets.device() == device, name,
            ": labels and masks must be on ", device, " as the logits, got ", labels.device(),
            " and ", targets.device());
  if (!has_values(labels)) return;
  const auto [least, most] = at::aminmax(labels);
  const int64_t lowest = least.item<int64_t>(), highest = most.item<int64_t>();
  VPD_CHECK(lowest >= 0 && highest < classes, name, ": labels must be in [0, ", classes, "), got ",
            lowest < 0 ? lowest : highest);
  if (targets.scalar_type() == at::kByte) {
    const auto value = targets.max().item<uint8_t>();
    VPD_CHECK(value <= 1, name, ": masks must be 0 or 1, got ", static_cast<int>(value));
  }
}

void check_options(const Mask2FormerOptions& options, size_t outputs) {
  VPD_CHECK(options.points > 0, kName, ": points must be positive, got ", options.points);
  VPD_CHECK(options.uncertain >= 0 && options.uncertain <= 1 && options.oversample >= 1, kName,
            ": expected a share of uncertain points in [0, 1] and an oversampling of 1 or more, "
            "got ",
            options.uncertain, " and ", options.oversample);
  VPD_CHECK(options.no_object >= 0, kName, ": the weight of no object must not be negative, got ",
            options.no_object);
  VPD_CHECK(!options.masks || *options.masks > 0, kName,
            ": the number of masks to divide by must be positive, got ", options.masks.value_or(0));
  VPD_CHECK(options.draws.empty() || options.draws.size() == outputs, kName,
            ": expected draws for ", outputs, " outputs, got ", options.draws.size());
}

// The draws of one output: given, or made now.
PointDraws draw(const Batch& batch, const Mask2FormerOptions& options, size_t output,
                at::Device device) {
  const int64_t matched = batch.matched();
  const auto candidates =
      static_cast<int64_t>(options.oversample * static_cast<double>(options.points));
  const auto chosen = static_cast<int64_t>(options.uncertain * static_cast<double>(options.points));
  const std::array<std::array<int64_t, 3>, 3> sizes{{{batch.images, options.points, 2},
                                                     {matched, candidates, 2},
                                                     {matched, options.points - chosen, 2}}};
  if (options.draws.empty()) {
    const auto random = [&](at::IntArrayRef size) {
      return at::rand(size, options.generator, at::TensorOptions(at::kFloat).device(device));
    };
    return {random(sizes[0]), random(sizes[1]), random(sizes[2])};
  }
  const PointDraws& given = options.draws[output];
  const Tensor* tensors[] = {&given.matching, &given.candidates, &given.rest};
  for (size_t i = 0; i < sizes.size(); ++i) {
    VPD_CHECK(tensors[i]->sizes() == at::IntArrayRef(sizes[i]) && tensors[i]->is_floating_point() &&
                  tensors[i]->device() == device,
              kName, ": draws of output ", output, " must be floating point ",
              at::IntArrayRef(sizes[i]), " on ", device, ", got ", tensors[i]->dtype(), " ",
              tensors[i]->sizes(), " on ", tensors[i]->device());
  }
  return given;
}

// mask2former_cost without its checks; logits and masks widened.
Tensor costs(const Tensor& logits, const Tensor& masks, const Tensor& labels, const Tensor& targets,
             const Tensor& points, const TermWeights& weights) {
  const at::NoGradGuard no_grad;
  const Tensor every = at::arange(labels.size(0), at::TensorOptions(at::kLong));
  const Tensor here = points.unsqueeze(0);
  const Tensor x = sample_points(masks.unsqueeze(0), here).squeeze(0);          // [Q, P]
  const Tensor y = sample_masks(targets, every, here).to(x.scalar_type()).t();  // [P, M]
  const Tensor p = at::sigmoid(x);
  // y softplus(-x) + (1 - y) softplus(x) = softplus(x) - x y
  const Tensor cross_entropy =
      (at::softplus(x).sum(1, /*keepdim=*/true) - x.matmul(y)) / static_cast<double>(x.size(1));
  const Tensor dice = 1 - (2 * p.matmul(y) + 1) / (p.sum(1, /*keepdim=*/true) + y.sum(0) + 1);
  const Tensor probability = logits.softmax(-1).index_select(1, labels);
  return weights.cross_entropy * cross_entropy + weights.dice * dice - weights.label * probability;
}

// Queries and targets of each image. Costs of all images travel to the CPU at once.
std::vector<std::pair<Tensor, Tensor>> matched(const Tensor& logits, const Tensor& masks,
                                               const Batch& batch, const Tensor& points,
                                               const TermWeights& weights) {
  std::vector<Tensor> flat;
  for (int64_t b = 0; b < batch.images; ++b) {
    flat.push_back(costs(logits[b], masks[b], batch.labels[b], batch.targets[b], points[b], weights)
                       .flatten());
  }
  const Tensor host = at::cat(flat).cpu();
  std::vector<std::pair<Tensor, Tensor>> found;
  int64_t first = 0;
  for (const Tensor& labels : batch.labels) {
    const int64_t own = labels.size(0), size = batch.queries * own;
    found.push_back(match(host.narrow(0, first, size).view({batch.queries, own}), kName));
    first += size;
  }
  return found;
}

// Where masks [N, h, w] are compared: the candidates whose logits are nearest to 0, and the rest.
Tensor uncertain_points(const Tensor& masks, const PointDraws& draws, int64_t points) {
  const at::NoGradGuard no_grad;
  const int64_t chosen = points - draws.rest.size(1);
  const Tensor certainty = sample_points(masks.unsqueeze(1), draws.candidates).squeeze(1).abs();
  const Tensor nearest = std::get<1>(at::topk(certainty, chosen, 1, /*largest=*/false));
  const Tensor uncertain = draws.candidates.gather(1, nearest.unsqueeze(-1).expand({-1, -1, 2}));
  return at::cat({uncertain, draws.rest.to(uncertain.scalar_type())}, 1);
}

struct Terms {
  Tensor cross_entropy, mask, dice;
  std::vector<std::pair<Tensor, Tensor>> matches;
};

Terms terms(const Tensor& logits_, const Tensor& masks_, const Batch& batch,
            const PointDraws& draws, const Mask2FormerOptions& options, double divisor) {
  const Tensor logits = widened(logits_), masks = widened(masks_);
  Terms result;
  result.matches = matched(logits, masks, batch, draws.matching, options.weights);

  std::vector<Tensor> rows, labels;  // queries of all images in a row; what they should say
  for (int64_t b = 0; b < batch.images; ++b) {
    const auto& [query, target] = result.matches[b];
    rows.push_back(query + b * batch.queries);
    labels.push_back(batch.labels[b].index_select(0, target.to(logits.device())));
  }
  const Tensor row = at::cat(rows).to(logits.device());
  Tensor expected = at::full({batch.images * batch.queries}, batch.classes, row.options());
  expected.index_copy_(0, row, at::cat(labels));
  Tensor weight = at::ones({batch.classes + 1}, logits.options());
  weight.select(0, batch.classes).fill_(options.no_object);
  result.cross_entropy = at::cross_entropy_loss(logits.flatten(0, 1), expected, weight);

  const Tensor chosen = masks.flatten(0, 1).index_select(0, row);  // [N, h, w]
  if (row.size(0) == 0) {
    result.mask = result.dice = chosen.sum();  // 0, with a gradient of zeros
    return result;
  }
  const Tensor points = uncertain_points(chosen, draws, options.points);
  std::vector<Tensor> truths;
  int64_t first = 0;
  for (int64_t b = 0; b < batch.images; ++b) {
    const Tensor& target = result.matches[b].second;
    truths.push_back(
        sample_masks(batch.targets[b], target, points.narrow(0, first, target.size(0))));
    first += target.size(0);
  }
  const Tensor y = at::cat(truths).to(masks.scalar_type());                // [N, P]
  const Tensor x = sample_points(chosen.unsqueeze(1), points).squeeze(1);  // [N, P]
  const Tensor p = at::sigmoid(x);
  result.mask =
      at::binary_cross_entropy_with_logits(x, y, {}, {}, at::Reduction::None).mean(1).sum() /
      divisor;
  result.dice = (1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)).sum() / divisor;
  return result;
}

}  // namespace

Tensor mask2former_cost(const Tensor& logits, const Tensor& masks, const Tensor& labels,
                        const Tensor& targets, const Tensor& points, const TermWeights& weights) {
  constexpr const char* kCost = "mask2former_cost";
  VPD_CHECK(logits.dim() == 2 && logits.is_floating_point() && logits.size(1) > 1, kCost,
            ": logits must be floating point [Q, K + 1], got ", logits.dtype(), " ",
            logits.sizes());
  VPD_CHECK(masks.dim() == 3 && masks.is_floating_point() && masks.size(0) == logits.size(0), kCost,
            ": masks must be floating point [", logits.size(0), ", h, w], got ", masks.dtype(), " ",
            masks.sizes());
  VPD_CHECK(
      points.dim() == 2 && points.size(1) == 2 && points.size(0) > 0 && points.is_floating_point(),
      kCost, ": points must be floating point [P, 2], got ", points.dtype(), " ", points.sizes());
  check_image(kCost, labels, targets, logits.size(1) - 1, logits.device());
  return costs(widened(logits), widened(masks), labels, targets, points, weights);
}

Mask2FormerLoss mask2former_loss(const std::vector<Tensor>& logits,
                                 const std::vector<Tensor>& masks,
                                 const std::vector<Tensor>& labels,
                                 const std::vector<Tensor>& targets,
                                 const Mask2FormerOptions& options) {
  VPD_CHECK(!logits.empty() && logits.size() == masks.size(), kName,
            ": expected as many logits as masks, one for each output of the head, got ",
            logits.size(), " and ", masks.size());
  VPD_CHECK(logits[0].dim() == 3 && logits[0].size(0) > 0 && logits[0].size(1) > 0 &&
                logits[0].size(2) > 1,
            kName, ": logits must be floating point [B, Q, K + 1], got ", logits[0].dtype(), " ",
            logits[0].sizes());
  const Batch batch{labels, targets, logits[0].size(0), logits[0].size(1), logits[0].size(2) - 1};
  const auto images = static_cast<size_t>(batch.images);
  VPD_CHECK(labels.size() == images && targets.size() == images, kName,
            ": expected labels and masks of ", images, " images, got ", labels.size(), " and ",
            targets.size());
  check_options(options, logits.size());
  for (size_t i = 0; i < logits.size(); ++i) check_output(logits[i], masks[i], batch);
  for (size_t b = 0; b < images; ++b) {
    check_image(kName, labels[b], targets[b], batch.classes, logits[0].device());
    VPD_CHECK(targets[b].sizes().slice(1) == targets[0].sizes().slice(1), kName,
              ": masks of all images must have one size, padded as their images are, got ",
              targets[0].sizes().slice(1), " and ", targets[b].sizes().slice(1));
  }
  const auto objects = static_cast<double>(std::max<int64_t>(batch.objects(), 1));
  const double divisor = options.masks.value_or(objects);

  Mask2FormerLoss result;
  std::vector<Tensor> cross_entropy, mask, dice;
  for (size_t i = 0; i < logits.size(); ++i) {
    Terms own = terms(logits[i], masks[i], batch, draw(batch, options, i, logits[i].device()),
                      options, divisor);
    cross_entropy.push_back(own.cross_entropy);
    mask.push_back(own.mask);
    dice.push_back(own.dice);
    result.matches.push_back(std::move(own.matches));
  }
  result.cross_entropy = at::stack(cross_entropy);
  result.mask = at::stack(mask);
  result.dice = at::stack(dice);
  const TermWeights& weights = options.weights;
  result.total = weights.label * result.cross_entropy.sum() +
                 weights.cross_entropy * result.mask.sum() + weights.dice * result.dice.sum();
  return result;
}

}  // namespace vpd::losses
