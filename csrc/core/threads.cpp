#include "core/threads.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

namespace vpd {

int64_t loop_threads() {
  std::vector<int64_t> used(static_cast<size_t>(at::get_num_threads()), 0);
  at::parallel_for(0, at::get_num_threads(), 1,
                   [&](int64_t, int64_t) { used[static_cast<size_t>(at::get_thread_num())] = 1; });
  return std::count(used.begin(), used.end(), 1);
}

}  // namespace vpd
