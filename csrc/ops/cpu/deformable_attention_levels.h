#pragma once
// What forward and backward of deformable attention share: values packed head by head, and where
// points fall in them.
//
// Each level of a packed plane has a border of zeros: one pixel, on the right two. All four corners
// of a point then exist, those outside read as zero and collect gradients that nobody reads, and no
// loop asks whether a corner is inside.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/check.h"
#include "ops/cpu/matmul.h"
#include "ops/deformable_attention.h"

namespace vpd::ops::cpu {

struct PackedLevel {
  int64_t height, width;
  int64_t pixel;  // first one, in value
  int64_t row;    // of the border's first corner, in a packed plane

  int64_t stride() const { return width + 3; }
};

struct DeformableShape {
  int64_t batch, pixels, heads, width, queries, points;
  int64_t rows = 0;  // of a packed plane: pixels and borders
  std::vector<PackedLevel> levels;

  DeformableShape(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& locations)
      : batch(value.size(0)),
        pixels(value.size(1)),
        heads(value.size(2)),
        width(value.size(3)),
        queries(locations.size(1)),
        points(locations.size(4)) {
    int64_t pixel = 0;
    for (const LevelSize size : level_sizes(shapes, pixels)) {
      levels.push_back({size.height, size.width, pixel, rows});
      pixel += size.height * size.width;
      rows += (size.height + 2) * levels.back().stride();
    }
    VPD_CHECK(rows <= std::numeric_limits<int32_t>::max(),
              "deformable_attention: at most 2^31 pixels fit, got ", rows);
  }

  int64_t planes() const { return batch * heads; }
  int64_t samples() const { return static_cast<int64_t>(levels.size()) * points; }  // of a head
};

// Calls line(plane, level, y, from) in parallel for every line of every level of every plane,
// border lines included; `from` is the element of value where the line starts.
template <typename Function>
void for_each_line(const DeformableShape& shape, const Function& line) {
  struct Line {
    const PackedLevel* level;
    int64_t y;
  };
  std::vector<Line> lines;
  for (const PackedLevel& level : shape.levels) {
    for (int64_t y = -1; y <= level.height; ++y) lines.push_back({&level, y});
  }
  const auto count = static_cast<int64_t>(lines.size());
  at::parallel_for(0, shape.planes() * count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / count, image = plane / shape.heads, head = plane % shape.heads;
      const auto [level, y] = lines[i % count];
      const int64_t pixel = image * shape.pixels + level->pixel + y * level->width;
      line(plane, *level, y, (pixel * shape.heads + head) * shape.width);
    }
  });
}

// First value of pixel (0, y) in the packed planes.
template <typename A>
int64_t packed_line(const DeformableShape& shape, int64_t plane, const PackedLevel& level,
                    int64_t y) {
  const int64_t row = plane * shape.rows + level.row + (y + 1) * level.stride() + 1;
  return row * padded<A>(shape.width);
}

// value [B, S, heads, D] -> packed [B * heads, rows, padded D]
template <typename T, typename A>
void pack_levels(const DeformableShape& shape, const T* value, A* packed) {
  const int64_t stride = padded<A>(shape.width);
  for_each_line(shape, [&](int64_t plane, const PackedLevel& level, int64_t y, int64_t from) {
    A* to = packed + packed_line<A>(shape, plane, level, y);
    std::fill_n(to - stride, level.stride() * stride, A(0));
    if (y < 0 || y == level.height) return;
    for (int64_t x = 0; x < level.width; ++x) {
      const T* __restrict pixel = value + from + x * shape.heads * shape.width;
      A* __restrict into = to + x * stride;
      for (int64_t d = 0; d < shape.width; ++d) into[d] = load(pixel[d]);
    }
  });
}

// The pixels of packed, back in value's order.
template <typename T, typename A>
void unpack_levels(const DeformableShape& shape, const A* packed, T* value) {
  const int64_t stride = padded<A>(shape.width);
  for_each_line(shape, [&](int64_t plane, const PackedLevel& level, int64_t y, int64_t to) {
    if (y < 0 || y == level.height) return;
    const A* from = packed + packed_line<A>(shape, plane, level, y);
    for (int64_t x = 0; x < level.width; ++x) {
      const A* __restrict pixel = from + x * stride;
      T* __restrict into = value + to + x * shape.heads * shape.width;
      for (int64_t d = 0; d < shape.width; ++d) store(into[d], pixel[d]);
    }
  });
}

// Size and place of the level that each sample of a query looks at, for `heads` heads in a row.
template <typename A>
struct SampleTable {
  std::vector<A> width, height;
  std::vector<int32_t> stride, origin;  // row of pixel (0, 0)

  SampleTable(const DeformableShape& shape, int64_t heads) {
    for (int64_t h = 0; h < heads; ++h) {
      for (const PackedLevel& level : shape.levels) {
        width.insert(width.end(), shape.points, static_cast<A>(level.width));
        height.insert(height.end(), shape.points, static_cast<A>(level.height));
        stride.insert(stride.end(), shape.points, static_cast<int32_t>(level.stride()));
        const int64_t first = level.row + level.stride() + 1;
        origin.insert(origin.end(), shape.points, static_cast<int32_t>(first));
      }
    }
  }
};

// Where samples [first, first + count) of the table fall: row of the upper left corner and how far
// behind it they are, in [0, 1). A point outside its level (and one that is no number) goes to
// where all corners are border.
template <typename A>
VPD_INLINE void place(const SampleTable<A>* table, int64_t first, int64_t count,
                      const A* __restrict locations, A* __restrict right, A* __restrict down,
                      int32_t* __restrict row) {
  const A* __restrict width = table->width.data() + first;
  const A* __restrict height = table->height.data() + first;
  const int32_t* __restrict stride = table->stride.data() + first;
  const int32_t* __restrict origin = table->origin.data() + first;
  for (int64_t i = 0; i < count; ++i) {
    const A x = locations[2 * i] * width[i] - A(0.5);
    const A y = locations[2 * i + 1] * height[i] - A(0.5);
    const bool inside = (x > A(-1)) & (y > A(-1)) & (x < width[i]) & (y < height[i]);
    const A near_x = inside ? x : width[i], near_y = inside ? y : A(-1);
    const A left = std::floor(near_x), top = std::floor(near_y);
    right[i] = near_x - left;
    down[i] = near_y - top;
    row[i] = origin[i] + static_cast<int32_t>(top) * stride[i] + static_cast<int32_t>(left);
  }
}

}  // namespace vpd::ops::cpu
