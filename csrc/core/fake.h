#pragma once
#include <ATen/core/Tensor.h>

namespace vpd {

// Whether a tensor pretends to be on the CPU but has no memory, as under Python's FakeTensorMode.
// What a kernel would allocate for it is then worked out (vpd.memory), so functions whose kernels
// keep less than ATen's operators must say so by the shapes they return and save.
inline bool is_fake(const at::Tensor& t) {
  return t.is_cpu() && t.unsafeGetTensorImpl()->is_python_dispatch() && t.has_storage() &&
         t.storage().nbytes() > 0 && t.storage().data() == nullptr;
}

}  // namespace vpd
