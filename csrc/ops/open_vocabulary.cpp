#include "ops/open_vocabulary.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>

#include <string_view>

#include "core/check.h"
#include "core/constant.h"

namespace vpd::ops {

namespace {

using at::Tensor;

constexpr double kSmallestChance = 1e-8;  // ODISE's, which keeps logarithms finite

at::ScalarType wide(const Tensor& x) { return at::toOpMathType(x.scalar_type()); }

void check_logits(const Tensor& logits, std::string_view name) {
  VPD_CHECK(logits.dim() >= 1 && logits.is_floating_point() && logits.size(-1) > 0, name,
            ": logits must be floating point [..., K] of one category or more, got ",
            logits.dtype(), " ", logits.sizes());
}

}  // namespace

Tensor geometric_mean(const Tensor& logits, const Tensor& other, const std::vector<bool>& seen,
                      double alpha, double beta) {
  constexpr std::string_view kName = "geometric_mean";
  check_logits(logits, kName);
  VPD_CHECK(other.is_floating_point() && other.sizes() == logits.sizes(), kName,
            ": both readings must be floating point of one shape, got ", logits.sizes(), " and ",
            other.dtype(), " ", other.sizes());
  VPD_CHECK(static_cast<int64_t>(seen.size()) == logits.size(-1), kName,
            ": expected whether each of ", logits.size(-1), " categories was seen, got ",
            seen.size(), " flags");
  const auto share = [](double weight) { return 0 <= weight && weight <= 1; };
  VPD_CHECK(share(alpha) && share(beta), kName, ": alpha and beta must be within 0 ... 1, got ",
            alpha, " and ", beta);
  std::vector<double> weights;
  for (const bool one : seen) weights.push_back(one ? alpha : beta);
  const at::ScalarType type = wide(logits);
  const Tensor weight = constant(weights, logits.options().dtype(type));
  return at::log_softmax(logits, -1, type) * (1 - weight) +
         at::log_softmax(other, -1, type) * weight;
}

Tensor with_no_object(const Tensor& logits, const Tensor& nothing) {
  constexpr std::string_view kName = "with_no_object";
  check_logits(logits, kName);
  const at::IntArrayRef masks = logits.sizes().slice(0, logits.sizes().size() - 1);
  VPD_CHECK(nothing.is_floating_point() && nothing.sizes() == masks, kName,
            ": nothing must be floating point ", masks, ", got ", nothing.dtype(), " ",
            nothing.sizes());
  const at::ScalarType type = wide(logits);
  const Tensor none = nothing.to(type).unsqueeze(-1);
  const Tensor some = at::softmax(logits, -1, type) * (1 - none);
  return (at::cat({some, none}, -1) + kSmallestChance).log();
}

}  // namespace vpd::ops
