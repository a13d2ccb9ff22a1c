#pragma once
#include <driver_types.h>

#include "types.h"

namespace vpd::ops::cuda {

struct DeformableSizes {
  int64_t batch, pixels, heads, width, queries, levels, points;
};

// value [B, S, heads, D], shapes int64 [L, 2] on the device, locations [B, Q, heads, L, P, 2],
// weights [B, Q, heads, L, P], both float (double for such values) -> out [B, Q, heads, D]. All
// dense; value and out aligned to 16 bytes. A level that value has no pixels for is left out.
cudaError_t launch_deformable_attention(Type type, DeformableSizes sizes, const void* value,
                                        const int64_t* shapes, const void* locations,
                                        const void* weights, void* out, cudaStream_t stream);

// grad like out -> grad_value (zeros, added to), grad_locations and grad_weights, all of the type
// of the locations. The order of the additions, hence the last bits of grad_value, varies.
cudaError_t launch_deformable_attention_backward(Type type, DeformableSizes sizes, const void* grad,
                                                 const void* value, const int64_t* shapes,
                                                 const void* locations, const void* weights,
                                                 void* grad_value, void* grad_locations,
                                                 void* grad_weights, cudaStream_t stream);

}  // namespace vpd::ops::cuda
