#include "nn/windows.h"

#include <ATen/ops/cat.h>

#include <vector>

#include "core/check.h"

namespace vpd::nn {
namespace {

using at::Tensor;

// Pieces of one size side by side along `dim`, where they are `length` long together: of what the
// last two have in common, the mean.
Tensor joined(std::vector<Tensor> pieces, int64_t length, int64_t dim) {
  const int64_t side = pieces[0].size(dim);
  const int64_t common = static_cast<int64_t>(pieces.size()) * side - length;
  if (common > 0) {
    Tensor& last = pieces.back();
    Tensor& before = pieces[pieces.size() - 2];
    const Tensor mean =
        (before.narrow(dim, side - common, common) + last.narrow(dim, 0, common)) / 2;
    before = before.narrow(dim, 0, side - common);
    last = last.narrow(dim, common, side - common);
    pieces.insert(pieces.end() - 1, mean);
  }
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces, dim);
}

}  // namespace

Tensor join_windows(const Tensor& windows, int64_t height, int64_t width) {
  VPD_CHECK(windows.dim() == 4 && windows.size(2) == windows.size(3) && windows.size(2) > 0,
            "join_windows: windows must be [N, C, side, side], got ", windows.sizes());
  const int64_t side = windows.size(2);
  VPD_CHECK(height >= side && width >= side, "join_windows: expected pictures of ", side, " x ",
            side, " at least, got ", height, " x ", width);
  const int64_t rows = (height + side - 1) / side, columns = (width + side - 1) / side;
  VPD_CHECK(windows.size(0) > 0 && windows.size(0) % (rows * columns) == 0,
            "join_windows: windows of ", side, " cover ", height, " x ", width, " in ", rows, " x ",
            columns, ", expected a multiple of that number, got ", windows.size(0));
  const std::vector<Tensor> pieces = windows.chunk(rows * columns);
  std::vector<Tensor> bands;
  for (int64_t row = 0; row < rows; ++row) {
    const auto first = pieces.begin() + row * columns;
    bands.push_back(joined({first, first + columns}, width, 3));
  }
  return joined(std::move(bands), height, 2);
}

}  // namespace vpd::nn
