#pragma once
// The backward pass of flash attention (Dao et al. 2022, appendix B.4) by the products of its
// forward pass alone. Gradients of queries go through all keys, those of keys and values through
// all queries, so that no two threads add to the same numbers; scores are computed twice.
//   P = 2^(factor Q K^T - L), dP = dO V^T, dS = P (dP - rowsum(dO O)):
//   dQ = scale dS K, dK = scale dS^T Q, dV = P^T dO
#include "ops/cpu/flash_attention_kernel.h"

namespace vpd::ops::cpu::flash {

VPD_FLASH_INLINE void clear(const Scratch& s, int64_t width) {
  for (int64_t r = 0; r < kQueries; ++r) s.shrink[r] = 1;
  for (int64_t i = 0; i < kQueries * width; i += kLanes) {
    _mm512_storeu_ps(s.out + i, _mm512_setzero_ps());
  }
}

template <typename Words>
VPD_FLASH_INLINE void store_words(uint32_t* to, int64_t i, __m512 a, __m512 b) {
  if constexpr (Words::kPack == 2) {
    _mm512_storeu_si512(to + i / 2, (__m512i)_mm512_cvtne2ps_pbh(b, a));
  } else {
    _mm512_storeu_ps(reinterpret_cast<float*>(to) + i, a);
    _mm512_storeu_ps(reinterpret_cast<float*>(to) + i + kLanes, b);
  }
}

// dS of a few queries against the keys from `first` on: s.queries are rows of Q, d.queries of dO.
template <typename Words>
VPD_FLASH_INLINE void score_gradients_by_query(const Head& keys, const Head& values,
                                               int64_t queries, int64_t first, int64_t count,
                                               const float* level, const float* delta,
                                               const Scratch& s, const Scratch& d) {
  constexpr bool kFine = Words::kPack == 1;
  score<Words>(keys, queries, first, count, s);
  score<Words>(values, queries, first, count, d);
  const __m512 factor = _mm512_set1_ps(keys.factor);
  for (int64_t r = 0; r < queries; ++r) {
    const __m512 by = _mm512_set1_ps(level[r]), less = _mm512_set1_ps(delta[r]);
    const float *scores = s.scores + r * kKeys, *products = d.scores + r * kKeys;
    uint32_t* to = d.weights + r * (kKeys / Words::kPack);
    for (int64_t i = 0; i < count; i += 2 * kLanes) {
      __m512 part[2];
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const __m512 at = _mm512_loadu_ps(scores + i + v * kLanes);
        const __m512 product = _mm512_loadu_ps(products + i + v * kLanes);
        const __m512 p = power_of_two<kFine>(_mm512_fmsub_ps(at, factor, by));
        part[v] = _mm512_mul_ps(p, _mm512_sub_ps(product, less));
      }
      store_words<Words>(to, i, part[0], part[1]);
    }
  }
}

// d.out = dQ / scale of a few queries. keys: K in both layouts; values: V as keys are laid out.
template <typename Words>
VPD_FLASH void gradient_of_queries(const Head& keys, const Head& values, int64_t queries,
                                   const float* level, const float* delta, const Scratch& s,
                                   const Scratch& d) {
  clear(d, keys.width);
  for (int64_t first = 0; first < keys.count; first += kKeys) {
    const int64_t count = keys.count - first < kKeys ? keys.count - first : kKeys;
    score_gradients_by_query<Words>(keys, values, queries, first, count, level, delta, s, d);
    add_values<Words>(keys, queries, first, count, d);
  }
}

// P^T and dS^T of a few keys against the queries from `first` on: s.queries are rows of K,
// d.queries of V.
template <typename Words>
VPD_FLASH_INLINE void score_gradients_by_key(const Head& queries, const Head& grads, int64_t keys,
                                             int64_t first, int64_t count, const float* level,
                                             const float* delta, const Scratch& s,
                                             const Scratch& d) {
  constexpr bool kFine = Words::kPack == 1;
  score<Words>(queries, keys, first, count, s);
  score<Words>(grads, keys, first, count, d);
  const __m512 factor = _mm512_set1_ps(queries.factor);
  for (int64_t r = 0; r < keys; ++r) {
    const float *scores = s.scores + r * kKeys, *products = d.scores + r * kKeys;
    const int64_t row = r * (kKeys / Words::kPack);
    for (int64_t i = 0; i < count; i += 2 * kLanes) {
      __m512 p[2], part[2];
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const __m512 at = _mm512_loadu_ps(scores + i + v * kLanes);
        const __m512 product = _mm512_loadu_ps(products + i + v * kLanes);
        const __m512 by = _mm512_loadu_ps(level + first + i + v * kLanes);
        const __m512 less = _mm512_loadu_ps(delta + first + i + v * kLanes);
        p[v] = power_of_two<kFine>(_mm512_fmsub_ps(at, factor, by));
        part[v] = _mm512_mul_ps(p[v], _mm512_sub_ps(product, less));
      }
      store_words<Words>(s.weights + row, i, p[0], p[1]);
      store_words<Words>(d.weights + row, i, part[0], part[1]);
    }
  }
}

// s.out = dV and d.out = dK / scale of a few keys. queries, grads: Q and dO in both layouts; level
// and delta up to a multiple of 2 kLanes, beyond the last query a level that no score reaches.
template <typename Words>
VPD_FLASH void gradient_of_keys(const Head& queries, const Head& grads, int64_t keys,
                                const float* level, const float* delta, const Scratch& s,
                                const Scratch& d) {
  clear(s, queries.width);
  clear(d, queries.width);
  for (int64_t first = 0; first < queries.count; first += kKeys) {
    const int64_t count = queries.count - first < kKeys ? queries.count - first : kKeys;
    score_gradients_by_key<Words>(queries, grads, keys, first, count, level, delta, s, d);
    add_values<Words>(grads, keys, first, count, s);
    add_values<Words>(queries, keys, first, count, d);
  }
}

}  // namespace vpd::ops::cpu::flash
