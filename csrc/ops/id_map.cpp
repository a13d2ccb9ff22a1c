#include "ops/id_map.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace vpd::ops {
namespace {
using at::Tensor;

constexpr int32_t kUnknown = -1;

// Ids in ascending order with their rows; that of 0 is row 0.
using Index = std::vector<std::pair<int64_t, int32_t>>;

Index index_of(const std::vector<int64_t>& ids) {
  Index index = {{0, 0}};
  for (const int64_t id : ids) {
    VPD_CHECK(id > 0, "segments: ids must be above 0, which is no segment, got ", id);
    index.emplace_back(id, static_cast<int32_t>(index.size()));
  }
  std::sort(index.begin(), index.end());
  for (size_t i = 1; i < index.size(); ++i) {
    VPD_CHECK(index[i].first != index[i - 1].first, "segments: expected every id once, got ",
              index[i].first, " again");
  }
  return index;
}

int32_t find(const Index& index, int64_t id) {
  const auto at = std::lower_bound(index.begin(), index.end(), std::pair<int64_t, int32_t>(id, 0));
  return at != index.end() && at->first == id ? at->second : kUnknown;
}

template <typename T>
void find_all(const T* ids, int64_t count, const Index& index, size_t segments, int32_t* rows) {
  int64_t last = 0, unknown = 0, unknown_id = 0;
  int32_t row = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t id = static_cast<int64_t>(ids[i]);
    if (id != last) {  // most pixels are like the one before
      row = find(index, id);
      last = id;
    }
    if (row == kUnknown && unknown++ == 0) unknown_id = id;
    rows[i] = row;
  }
  VPD_CHECK(unknown == 0, "id map: expected ids of the ", segments, " segments listed, or 0, got ",
            unknown_id, " (", unknown, " pixels are of segments not listed)");
}

}  // namespace

Tensor id_rows(const Tensor& map, const std::vector<int64_t>& ids) {
  VPD_CHECK(map.dim() == 2 && at::isIntegralType(map.scalar_type(), false),
            "id map must be integer [H, W], got ", map.dtype(), " ", map.sizes());
  const at::ScalarType type = map.scalar_type();
  const bool rare = type == at::kUInt16 || type == at::kUInt32 || type == at::kUInt64;
  const Tensor own = (rare ? map.cpu().to(at::kLong) : map.cpu()).contiguous();
  const Index index = index_of(ids);
  const Tensor rows = at::empty(own.sizes(), own.options().dtype(at::kInt));
  AT_DISPATCH_INTEGRAL_TYPES(own.scalar_type(), "id_rows", [&] {
    find_all(own.const_data_ptr<scalar_t>(), own.numel(), index, ids.size(),
             rows.mutable_data_ptr<int32_t>());
  });
  return rows;
}

}  // namespace vpd::ops
