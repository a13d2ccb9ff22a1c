#include "ops/category_logits.h"

#include <ATen/OpMathType.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scatter_reduce.h>

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/constant.h"
#include "ops/unit.h"

namespace vpd::ops {
namespace {
using at::Tensor;

constexpr const char* kName = "category_logits";

Tensor widened(const Tensor& x) { return x.to(at::toOpMathType(x.scalar_type())); }

}  // namespace

int64_t count_categories(const std::vector<int64_t>& categories, int64_t names) {
  VPD_CHECK(static_cast<int64_t>(categories.size()) == names, kName,
            ": expected one of the categories for each of ", names, " names, got ",
            categories.size());
  std::vector<bool> named(categories.size());
  for (const int64_t category : categories) {
    VPD_CHECK(category >= 0 && category < names, kName, ": each category must have a name, got ",
              names, " names and category ", category);
    named[static_cast<size_t>(category)] = true;
  }
  const int64_t most = *std::max_element(categories.begin(), categories.end());
  const auto without = std::find(named.begin(), named.begin() + most, false) - named.begin();
  VPD_CHECK(without == most, kName, ": each category must have a name, got none of category ",
            without);
  return most + 1;
}

Tensor category_logits(const Tensor& embeddings, const Tensor& names,
                       const std::vector<int64_t>& categories, const Tensor& scale) {
  VPD_CHECK(embeddings.dim() >= 1 && embeddings.is_floating_point(), kName,
            ": embeddings must be floating point [..., D], got ", embeddings.dtype(), " ",
            embeddings.sizes());
  VPD_CHECK(names.dim() == 2 && names.is_floating_point() && names.size(0) > 0 &&
                names.size(1) == embeddings.size(-1),
            kName, ": names must be floating point [S, ", embeddings.size(-1),
            "], at least one, got ", names.dtype(), " ", names.sizes());
  VPD_CHECK(scale.dim() == 0 && scale.is_floating_point(), kName,
            ": scale must be a floating-point scalar, got ", scale.dtype(), " ", scale.sizes());
  const int64_t known = count_categories(categories, names.size(0));
  // With a scale of 100, half precision would lose half a unit.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const Tensor near = unit(widened(embeddings)).matmul(unit(widened(names)).t());  // [..., S]
  std::vector<int64_t> sizes = embeddings.sizes().vec();
  sizes.back() = known;
  const Tensor index = constant(categories, names.options().dtype(at::kLong));
  const Tensor lowest = at::full(sizes, -std::numeric_limits<double>::infinity(), near.options());
  const Tensor nearest = at::scatter_reduce(lowest, -1, index.expand_as(near), near, "amax",
                                            /*include_self=*/false);
  return widened(scale) * nearest;
}

}  // namespace vpd::ops
