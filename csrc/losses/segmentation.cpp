#include "losses/segmentation.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/check.h"
#include "core/constant.h"
#include "core/fake.h"
#include "losses/segmentation_pixels.h"

namespace vpd::losses {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr const char* kName = "segmentation_cross_entropy";

// Loss [B, H, W] and number of correct pixels [].
class CrossEntropy : public torch::autograd::Function<CrossEntropy> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& logits, const Tensor& target,
                               const Tensor& weight, int64_t ignore_index) {
    const Pixels pixels{logits, target, weight, ignore_index};
    const bool by_row = ((has_values(logits) && has_values(target)) || is_fake(logits)) &&
                        logits.scalar_type() == at::kFloat;
    const PixelLosses found = by_row ? losses_by_row(pixels) : losses_by_image(pixels);
    ctx->save_for_backward({logits, target, weight, found.log_sum});
    ctx->saved_data["ignore_index"] = ignore_index;
    ctx->saved_data["by_row"] = by_row;
    ctx->mark_non_differentiable({found.correct});
    return {found.loss, found.correct};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    VPD_CHECK(!at::GradMode::is_enabled(), kName, ": second derivatives are not supported");
    const variable_list saved = ctx->get_saved_variables();
    const Pixels pixels{saved[0], saved[1], saved[2], ctx->saved_data["ignore_index"].toInt()};
    const bool by_row = ctx->saved_data["by_row"].toBool();
    return {by_row ? gradient_by_row(pixels, saved[3], grads[0])
                   : gradient_by_image(pixels, saved[3], grads[0]),
            {},
            {},
            {}};
  }
};

// int64, with values that fit.
Tensor checked(const Tensor& logits, const Tensor& target, int64_t ignore_index) {
  VPD_CHECK(logits.dim() == 4 && logits.is_floating_point() && logits.size(1) > 0 &&
                logits.size(2) > 0 && logits.size(3) > 0,
            kName, ": logits must be floating point [B, K, h, w], got ", logits.dtype(), " ",
            logits.sizes());
  VPD_CHECK(target.dim() == 3 && target.size(0) == logits.size(0) && target.size(1) > 0 &&
                target.size(2) > 0 &&
                (target.scalar_type() == at::kLong || target.scalar_type() == at::kByte),
            kName, ": target must be int64 or uint8 [", logits.size(0), ", H, W], got ",
            target.dtype(), " ", target.sizes());
  VPD_CHECK(target.device() == logits.device(), kName, ": target must be on ", logits.device(),
            " as logits, got ", target.device());
  Tensor labels = target.to(at::kLong).contiguous();
  if (has_values(labels)) {
    const int64_t* label = labels.const_data_ptr<int64_t>();
    const int64_t* end = label + labels.numel();
    const int64_t* wrong = std::find_if(label, end, [&](int64_t value) {
      return (value < 0 || value >= logits.size(1)) && value != ignore_index;
    });
    VPD_CHECK(wrong == end, kName, ": target classes must be in [0, ", logits.size(1), ") or ",
              ignore_index, " (ignored), got ", *wrong);
  }
  return labels;
}

struct Found {
  Tensor loss, correct, target;
};

Found run(const Tensor& logits, const Tensor& target, int64_t ignore_index,
          const std::optional<std::vector<double>>& weight) {
  const Tensor labels = checked(logits, target, ignore_index), wide = widened(logits);
  const std::vector<double> weights =
      weight.value_or(std::vector<double>(static_cast<size_t>(logits.size(1)), 1.0));
  VPD_CHECK(static_cast<int64_t>(weights.size()) == logits.size(1), kName, ": expected ",
            logits.size(1), " class weights, got ", weights.size());
  const variable_list found =
      CrossEntropy::apply(wide, labels, constant(weights, wide.options()), ignore_index);
  return {found[0], found[1], labels};
}

}  // namespace

Average parse_average(const std::string& word) {
  if (word == "all") return Average::kAll;
  if (word == "valid") return Average::kValid;
  fail("average must be 'all' or 'valid', got '", word, "'");
}

SegmentationSums segmentation_sums(const Tensor& logits, const Tensor& target, int64_t ignore_index,
                                   const std::optional<std::vector<double>>& weight) {
  const Found found = run(logits, target, ignore_index, weight);
  return {found.loss.sum(), found.correct, (found.target != ignore_index).sum()};
}

Tensor segmentation_cross_entropy(const Tensor& logits, const Tensor& target, int64_t ignore_index,
                                  Average average, const std::optional<std::vector<double>>& weight,
                                  Reduction reduction) {
  const Found found = run(logits, target, ignore_index, weight);
  if (reduction != Reduction::kMean) return reduce(found.loss, reduction);
  if (average == Average::kValid) {
    return found.loss.sum() / (found.target != ignore_index).sum().clamp_min(1);
  }
  return found.loss.sum() / std::max<int64_t>(found.target.numel(), 1);
}

}  // namespace vpd::losses
