#pragma once
#include <functional>

#include "core/params.h"

namespace vpd {

// Tensors out of parameters and tensors, and out of nothing else that changes: running it twice
// gives the same.
using PureFunction = std::function<std::vector<Tensor>(const Params&, const std::vector<Tensor>&)>;

// f(p, inputs) that keeps nothing but its inputs: its backward runs f again first (Chen et al.
// 2016, "Training Deep Nets with Sublinear Memory Cost").
//
// Inputs are defined tensors. All parameters that f uses are among `own`; others are undefined in
// the second run. Gradients flow to inputs and own parameters. Where none is asked for, f just
// runs. The second run sees autocast as the first did. Second derivatives are refused.
std::vector<Tensor> recompute(PureFunction f, const Params& p, SlotRange own,
                              const std::vector<Tensor>& inputs);

}  // namespace vpd
