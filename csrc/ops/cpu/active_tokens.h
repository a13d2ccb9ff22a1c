#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace vpd::ops::cpu {

// The tokens that are attended to: `count` by image, and their indices.
struct ActiveTokens {
  std::vector<int64_t> count, index;
  int64_t stride;

  ActiveTokens(const std::optional<at::Tensor>& mask, int64_t batch, int64_t tokens)
      : count(batch, tokens), index(batch * tokens), stride(tokens) {
    const at::Tensor dense = mask ? mask->contiguous() : at::Tensor();
    const bool* attend = mask ? dense.const_data_ptr<bool>() : nullptr;
    for (int64_t image = 0; image < batch; ++image) {
      int64_t active = 0;
      for (int64_t n = 0; n < tokens; ++n) {
        if (attend == nullptr || attend[image * tokens + n]) {
          index[image * stride + active++] = n;
        }
      }
      count[image] = active;
    }
  }
  const int64_t* of(int64_t image) const { return index.data() + image * stride; }
};

}  // namespace vpd::ops::cpu
