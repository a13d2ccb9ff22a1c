#pragma once
#include <cstdint>

namespace vpd {

// Threads that a loop of the core runs on: PyTorch's (torch.set_num_threads). Measured by running
// one.
int64_t loop_threads();

}  // namespace vpd
