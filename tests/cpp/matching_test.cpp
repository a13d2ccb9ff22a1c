// Optimal assignment against every assignment there is.
#include "losses/matching.h"

#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace vpd::losses {
namespace {

// The least total of a cost [N, M] with N <= M, by trying all.
double least(const at::Tensor& cost) {
  std::vector<int64_t> columns(static_cast<size_t>(cost.size(1)));
  std::iota(columns.begin(), columns.end(), 0);
  double best = std::numeric_limits<double>::infinity();
  do {
    double total = 0;
    for (int64_t row = 0; row < cost.size(0); ++row) {
      total += cost[row][columns[static_cast<size_t>(row)]].item<double>();
    }
    best = std::min(best, total);
  } while (std::next_permutation(columns.begin(), columns.end()));
  return best;
}

TEST(Match, NoAssignmentIsCheaper) {
  const std::vector<std::pair<int64_t, int64_t>> sizes = {{1, 1}, {1, 4}, {3, 3}, {3, 5}, {5, 5}};
  for (const auto& [rows, columns] : sizes) {
    for (const at::Tensor& cost : {at::randn({rows, columns}, at::kDouble),
                                   at::randint(-2, 3, {rows, columns}, at::kDouble)}) {  // ties
      for (const at::Tensor& way : {cost, cost.t()}) {
        const auto [row, column] = match(way);
        EXPECT_EQ(row.numel(), rows);
        EXPECT_NEAR(way.index({row, column}).sum().item<double>(), least(cost), 1e-9);
        EXPECT_TRUE((row.diff() > 0).all().item<bool>());
        std::vector<int64_t> taken(column.data_ptr<int64_t>(), column.data_ptr<int64_t>() + rows);
        std::sort(taken.begin(), taken.end());
        EXPECT_EQ(std::adjacent_find(taken.begin(), taken.end()), taken.end());
      }
    }
  }
}

TEST(Match, EmptyAndBadCosts) {
  EXPECT_EQ(match(at::randn({0, 3})).first.numel(), 0);
  at::Tensor cost = at::randn({2, 2});
  cost[0][1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(match(cost), std::invalid_argument);
  EXPECT_THROW(match(at::randn({3})), std::invalid_argument);
}

}  // namespace
}  // namespace vpd::losses
