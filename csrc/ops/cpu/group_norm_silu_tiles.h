#pragma once
// How the loops of group normalisation are shared out: by image and part of its pixels when
// channels lie side by side (channels_last), by image and group when pixels do (contiguous).
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops/cpu/group_norm_silu_rows.h"

namespace vpd::ops::cpu {

// Rows summed in A before the sums go to double: short enough for float, long enough to hide the
// conversion.
inline constexpr int64_t kRowsPerSum = 256;
// Columns that the pixels of one channel are folded into.
inline constexpr int64_t kFold = 64;
// Values worth a task of their own.
inline constexpr int64_t kGrain = 16384;

struct Shape {
  int64_t batch, channels, pixels, groups;
  int64_t per_group() const { return channels / groups; }
  double count() const { return static_cast<double>(per_group() * pixels); }
};

// Parts that each image is cut into so that all threads work: one when there are images enough.
inline int64_t parts_per_image(const Shape& shape) {
  const int64_t threads = at::get_num_threads();
  if (shape.batch % threads == 0 || shape.batch >= 4 * threads) {
    return 1;
  }
  const int64_t worthwhile = shape.channels * shape.pixels / kGrain;
  return std::clamp<int64_t>(std::min(worthwhile, threads), 1, shape.pixels);
}

// The rows [begin, end) of one part of `pixels` rows.
struct Range {
  int64_t begin, end;
  static Range part(int64_t pixels, int64_t index, int64_t parts) {
    return {pixels * index / parts, pixels * (index + 1) / parts};
  }
};

// Calls visit(first row, rows) for [begin, end) in steps of at most kRowsPerSum.
template <typename Visit>
void for_each_step(Range range, const Visit& visit) {
  for (int64_t row = range.begin; row < range.end; row += kRowsPerSum) {
    visit(row, std::min(kRowsPerSum, range.end - row));
  }
}

// Calls visit(offset, rows, width) so that a contiguous span is covered by blocks of at most kFold
// columns.
template <typename Visit>
void for_each_fold(int64_t length, const Visit& visit) {
  const int64_t rows = length / kFold;
  if (rows > 0) {
    visit(int64_t{0}, rows, kFold);
  }
  if (rows * kFold < length) {
    visit(rows * kFold, int64_t{1}, length - rows * kFold);
  }
}

// Two-phase work on (image, part): `sums` of all parts of an image must be done before its `apply`.
template <typename Sums, typename Apply>
void run_two_phases(const Shape& shape, int64_t parts, const Sums& sums, const Apply& apply) {
  const int64_t tasks = shape.batch * parts;
  const int64_t grain = std::max<int64_t>(1, kGrain * parts / (shape.channels * shape.pixels));
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      sums(task / parts, task % parts);
      if (parts == 1) {
        apply(task, int64_t{0});  // while the image is still in the cache
      }
    }
  });
  if (parts > 1) {
    at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        apply(task / parts, task % parts);
      }
    });
  }
}

template <typename Work>
void for_each_group(const Shape& shape, const Work& work) {
  const int64_t tasks = shape.batch * shape.groups;
  const int64_t grain = std::max<int64_t>(1, kGrain / (shape.per_group() * shape.pixels));
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      work(task / shape.groups, task % shape.groups);
    }
  });
}

}  // namespace vpd::ops::cpu
