#pragma once
// Products of small matrices by a warp. Fragments lie in registers as PTX lays them out (ISA,
// "Matrix Fragments for mma.m16n8k16"): lane l holds of A [16, 16] rows l / 4 and l / 4 + 8,
// columns 2 (l % 4) + {0, 1, 8, 9}; of B [16, 8] the same places of column l / 4; of C [16, 8] both
// rows, columns 2 (l % 4) + {0, 1}. A word is two numbers, the lower one first.
#include "common.cuh"

namespace vpd::ops::cuda {

__device__ inline uint32_t pair_of(__half*, float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}
__device__ inline uint32_t pair_of(__nv_bfloat16*, float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}

// c += a b, summed up in float32.
__device__ inline void multiply_add(__half*, const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                    float (&c)[4]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else  // Turing: half as deep
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}
__device__ inline void multiply_add(__nv_bfloat16*, const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1, float (&c)[4]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();  // has no such product; nobody launches it there
#endif
}

}  // namespace vpd::ops::cuda
