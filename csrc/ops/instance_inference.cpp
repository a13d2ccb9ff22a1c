#include <ATen/Parallel.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/check.h"
#include "ops/mask_inference.h"

namespace vpd::ops {
namespace {
using at::Tensor;

// Where masks begin and end along the pixels, and their sums of s.
struct Outline {
  int64_t queries;
  double* sums;
  int32_t* was;
  std::vector<int64_t>* edges;

  VPD_INLINE void operator()(int64_t pixel, const float* logits) const {
    int32_t changes = 0;
    for (int64_t q = 0; q < queries; ++q) {
      const int32_t inside = logits[q] > 0;
      sums[q] += inside != 0 ? cpu::sigmoid(logits[q]) : 0.f;
      changes |= inside ^ was[q];
    }
    if (changes == 0) return;
    for (int64_t q = 0; q < queries; ++q) {
      if ((logits[q] > 0) == (was[q] != 0)) continue;
      was[q] = !was[q];
      edges[q].push_back(pixel);
    }
  }
};

struct Stripe {  // some columns of the picture
  std::vector<double> sums;
  std::vector<std::vector<int64_t>> edges;
};

Stripe outline(const MaskGrid& grid, int64_t first, int64_t last) {
  const size_t queries = static_cast<size_t>(grid.queries);
  Stripe own{std::vector<double>(queries), std::vector<std::vector<int64_t>>(queries)};
  std::vector<int32_t> was(queries);
  for_pixels(grid, first, last,
             Outline{grid.queries, own.sums.data(), was.data(), own.edges.data()});
  const int64_t end = last * grid.length();
  for (size_t q = 0; q < queries; ++q) {
    if (was[q]) own.edges[q].push_back(end);
  }
  return own;
}

// Run lengths from the edges of all stripes.
std::vector<int64_t> runs_of(const std::vector<Stripe>& stripes, size_t query, int64_t pixels) {
  std::vector<int64_t> edges;
  for (const Stripe& stripe : stripes) {
    const std::vector<int64_t>& own = stripe.edges[query];
    // A mask across the border between stripes ends and begins there.
    const bool goes_on = !edges.empty() && !own.empty() && edges.back() == own.front();
    if (goes_on) edges.pop_back();
    edges.insert(edges.end(), own.begin() + goes_on, own.end());
  }
  std::vector<int64_t> runs;
  int64_t before = 0;
  for (const int64_t edge : edges) {
    runs.push_back(edge - before);
    before = edge;
  }
  if (before < pixels || runs.empty()) runs.push_back(pixels - before);
  return runs;
}

}  // namespace

InstanceMasks instance_inference(const Tensor& logits, const Tensor& masks, const MaskView& view,
                                 const std::vector<bool>& things, int64_t top) {
  const Tensor chances = class_chances(logits, masks);
  check_things(chances, things);
  VPD_CHECK(top >= 1, "instance_inference: expected at least 1 instance, got ", top);
  const int64_t classes = chances.size(1) - 1;
  const Tensor flat = chances.narrow(1, 0, classes).reshape({-1});
  const auto [values, places] = flat.topk(std::min(top, flat.numel()));
  const auto chance = values.accessor<float, 1>();
  const auto place = places.accessor<int64_t, 1>();
  std::vector<InstanceMask> instances;
  std::vector<int64_t> queries;       // of those, each once
  std::map<int64_t, int64_t> row_of;  // query -> its place in `queries`
  for (int64_t i = 0; i < place.size(0); ++i) {
    const int64_t query = place[i] / classes, category = place[i] % classes;
    if (!things[static_cast<size_t>(category)]) continue;
    const auto [row, is_new] = row_of.emplace(query, static_cast<int64_t>(queries.size()));
    if (is_new) queries.push_back(query);
    instances.push_back({category, row->second, chance[i]});
  }
  const MaskGrid grid(masks.index_select(0, at::tensor(queries, at::kLong)), view, true);
  if (queries.empty()) return {};
  const int64_t count = std::min<int64_t>(grid.lines(), 4 * at::get_num_threads());
  std::vector<Stripe> stripes(static_cast<size_t>(count));
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      stripes[static_cast<size_t>(s)] =
          outline(grid, s * grid.lines() / count, (s + 1) * grid.lines() / count);
    }
  });
  InstanceMasks found;
  std::vector<double> sure;  // mean s of each mask
  for (size_t q = 0; q < queries.size(); ++q) {
    std::vector<int64_t> runs = runs_of(stripes, q, view.size[0] * view.size[1]);
    double sum = 0;
    int64_t area = 0;
    for (const Stripe& stripe : stripes) sum += stripe.sums[q];
    for (size_t r = 1; r < runs.size(); r += 2) area += runs[r];
    sure.push_back(sum / (static_cast<double>(area) + 1e-6));
    found.runs.push_back(std::move(runs));
  }
  for (InstanceMask& one : instances) one.score *= sure[static_cast<size_t>(one.mask)];
  std::stable_sort(instances.begin(), instances.end(),
                   [](const InstanceMask& a, const InstanceMask& b) { return a.score > b.score; });
  found.instances = std::move(instances);
  return found;
}

}  // namespace vpd::ops
