#include "losses/matching.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/check.h"

namespace vpd::losses {

using at::Tensor;

namespace {

constexpr int64_t kNone = -1;

// Rows of a matrix with at least as many columns are assigned one after the other. Prices of rows
// and columns keep every reduced cost, cost - row price - column price, at or above 0, and at 0
// where a row is assigned; so the cheapest way to fit in one more row is a shortest path.
class Assignment {
 public:
  Assignment(const double* cost, int64_t rows, int64_t columns)
      : cost_(cost),
        columns_(columns),
        column_of_(rows, kNone),
        row_of_(columns, kNone),
        row_price_(rows, 0.0),
        column_price_(columns, 0.0),
        distance_(columns),
        from_(columns),
        open_(columns) {
    for (int64_t row = 0; row < rows; ++row) assign(row);
  }

  const std::vector<int64_t>& columns() const { return column_of_; }  // of each row

 private:
  // Gives `row` a column, and other rows new ones where that is cheaper.
  void assign(int64_t row) {
    const int64_t end = shortest_path(row);
    for (int64_t column = end;;) {
      const int64_t giver = from_[column];
      row_of_[column] = giver;
      std::swap(column_of_[giver], column);
      if (giver == row) return;
    }
  }

  // Dijkstra's search, by reduced costs, from a row to the nearest free column. Leaves the way back
  // in from_ and adapts the prices.
  int64_t shortest_path(int64_t row) {
    std::fill(distance_.begin(), distance_.end(), std::numeric_limits<double>::infinity());
    for (int64_t j = 0; j < columns_; ++j) open_[j] = j;
    int64_t open = columns_, at = row, reached = kNone;
    double length = 0;
    do {
      const int64_t next = nearest(at, length, open);
      reached = open_[next];
      length = distance_[reached];
      std::swap(open_[next], open_[--open]);  // behind `open`: columns whose distance is final
      at = row_of_[reached];
    } while (at != kNone);
    row_price_[row] += length;
    for (int64_t k = open; k < columns_; ++k) {
      const int64_t column = open_[k];
      const double gain = length - distance_[column];
      column_price_[column] -= gain;
      if (row_of_[column] != kNone) row_price_[row_of_[column]] += gain;
    }
    return reached;
  }

  // Distances by way of `row`, which is `length` away; position in open_ of the nearest column, a
  // free one among equals.
  int64_t nearest(int64_t row, double length, int64_t open) {
    const double* cost = cost_ + row * columns_;
    const double base = length - row_price_[row];
    double least = std::numeric_limits<double>::infinity();
    int64_t best = 0;
    for (int64_t k = 0; k < open; ++k) {
      const int64_t column = open_[k];
      const double along = base + cost[column] - column_price_[column];
      if (along < distance_[column]) {
        distance_[column] = along;
        from_[column] = row;
      }
      const double distance = distance_[column];
      if (distance < least || (distance == least && row_of_[column] == kNone)) {
        least = distance;
        best = k;
      }
    }
    return best;
  }

  const double* cost_;
  int64_t columns_;
  std::vector<int64_t> column_of_, row_of_;
  std::vector<double> row_price_, column_price_, distance_;
  std::vector<int64_t> from_, open_;  // row before each column on its path; columns to look at
};

}  // namespace

std::pair<Tensor, Tensor> match(const Tensor& cost, const char* name) {
  VPD_CHECK(cost.dim() == 2 && !cost.is_complex(), name, ": cost must be real [N, M], got ",
            cost.dtype(), " ", cost.sizes());
  const int64_t rows = cost.size(0), columns = cost.size(1);
  const bool wide = rows <= columns;
  const Tensor host = cost.detach().to(at::kCPU, at::kDouble);
  if (!has_values(host)) {  // as good as any other
    const Tensor every = at::arange(std::min(rows, columns), at::TensorOptions(at::kLong));
    return {every, every};
  }
  const Tensor matrix = (wide ? host : host.t()).contiguous();
  const double* costs = matrix.const_data_ptr<double>();
  for (int64_t i = 0; i < matrix.numel(); ++i) {
    if (std::isfinite(costs[i])) continue;
    const int64_t down = i / matrix.size(1), across = i % matrix.size(1);
    fail(name, ": costs must be finite, got ", costs[i], " at [", wide ? down : across, ", ",
         wide ? across : down, "]");
  }
  const Assignment found(costs, matrix.size(0), matrix.size(1));
  const int64_t pairs = matrix.size(0);
  Tensor first = at::empty({pairs}, at::kLong), second = at::empty({pairs}, at::kLong);
  int64_t *row = first.mutable_data_ptr<int64_t>(), *column = second.mutable_data_ptr<int64_t>();
  if (wide) {
    for (int64_t i = 0; i < pairs; ++i) {
      row[i] = i;
      column[i] = found.columns()[i];
    }
    return {first, second};
  }
  std::vector<int64_t> column_of(rows, kNone);
  for (int64_t j = 0; j < pairs; ++j) column_of[found.columns()[j]] = j;
  for (int64_t i = 0, k = 0; i < rows; ++i) {
    if (column_of[i] == kNone) continue;
    row[k] = i;
    column[k++] = column_of[i];
  }
  return {first, second};
}

}  // namespace vpd::losses
