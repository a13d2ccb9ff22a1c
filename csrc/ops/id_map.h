#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vpd::ops {

// Which segment each pixel of an id map belongs to.
//   map: integers of any width, [H, W]; 0 is no segment
//   ids: of the segments, above 0 and each once
// -> int32 [H, W] on the CPU: 0 for no segment, k for ids[k - 1]. An id that is not listed is an
//    error.
at::Tensor id_rows(const at::Tensor& map, const std::vector<int64_t>& ids);

}  // namespace vpd::ops
