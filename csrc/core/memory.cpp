#include "core/memory.h"

#include <cstdlib>  // defines __GLIBC__ where it is the C library

#if defined(__GLIBC__)
#include <malloc.h>

#include <limits>
#endif

namespace vpd {

void set_freed_memory([[maybe_unused]] FreedMemory policy) {
#if defined(__GLIBC__)
  constexpr int kLargestThreshold = 32 << 20;  // the most that glibc accepts
  const bool kept = policy == FreedMemory::kKept;
  // Setting it, to whatever value, also ends glibc's own adjustments of it.
  mallopt(M_MMAP_THRESHOLD, kept ? kLargestThreshold : 1 << 20);
  mallopt(M_TRIM_THRESHOLD, kept ? std::numeric_limits<int>::max() : 1 << 20);
#endif
}

}  // namespace vpd
