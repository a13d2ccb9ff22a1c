#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

namespace vpd::losses {

// Cheapest assignment of rows to columns, each taken at most once: cost [N, M] of any real type ->
// rows (ascending) and their columns, int64 [min(N, M)] on the CPU. Throws std::invalid_argument,
// naming the caller, if a cost is not finite.
//
// Shortest augmenting paths (Jonker & Volgenant 1987; rectangular as in Crouse 2016) in float64,
// O(n^2 m) for n <= m.
std::pair<at::Tensor, at::Tensor> match(const at::Tensor& cost, const char* name = "match");

}  // namespace vpd::losses
