#pragma once
#include <driver_types.h>

#include "types.h"

namespace vpd::ops::cuda {

// q [batch, queries, heads * width], k and v [batch, tokens, heads * width] -> out like q; map
// [batch, tokens, queries], the mean over heads, or [batch, heads, tokens, queries]. All dense, of
// one type and aligned to 16 bytes. mask: bool [batch, tokens], or null.
struct CrossAttentionCall {
  Type type;
  int64_t batch, queries, tokens, heads, width;
  const void *q, *k, *v;
  const bool* mask;
  float scale;
  bool per_head;
  void *out, *map;
  float* sums;  // scratch of the size of the mean map, where cross_attention_sums says so
};

// Whether the kernel does such a call on the current GPU: half (since Turing) or bfloat16 (since
// Ampere), heads of a multiple of 8 up to 160 columns.
bool cross_attention_takes(const CrossAttentionCall& call);
bool cross_attention_sums(const CrossAttentionCall& call);
// Of a call that it takes.
cudaError_t launch_cross_attention(const CrossAttentionCall& call, cudaStream_t stream);

}  // namespace vpd::ops::cuda
