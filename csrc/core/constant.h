#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace vpd {

// A tensor of known values. It has them even where a mode turns new tensors into fake ones, which
// could not be filled.
template <typename T>
at::Tensor constant(const std::vector<T>& values, const at::TensorOptions& options) {
  const c10::impl::ExcludeDispatchKeyGuard no_modes(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
  return at::tensor(values, options);
}

}  // namespace vpd
