#pragma once
// Flash attention of a few queries in AVX-512. A word of 32 bits is one float, or a pair of
// bfloat16 numbers that a single instruction multiplies and adds up in float32.
//
// Functions of one instruction set on plain memory, without other headers: what those have inline
// would be compiled for this set too, and the linker may pick that copy for everyone.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push  // its own intrinsics start from undefined registers (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

namespace vpd::ops::cpu::flash {

#define VPD_FLASH __attribute__((target("arch=x86-64-v4,avx512bf16,prefer-vector-width=512")))
#define VPD_FLASH_INLINE inline __attribute__((always_inline)) VPD_FLASH

struct FloatWords {
  using Number = float;
  static constexpr int64_t kPack = 1;  // numbers in a word
  static float number(float x) { return x; }
  static float value(float x) { return x; }
  static VPD_FLASH_INLINE __m512 multiply_add(__m512i a, __m512i b, __m512 c) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), c);
  }
};

struct BFloat16Words {
  using Number = uint16_t;
  static constexpr int64_t kPack = 2;
  // To the nearest, ties to even.
  static uint16_t number(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7FC0;
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
  }
  static float value(uint16_t number) {
    const uint32_t bits = uint32_t{number} << 16;
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
  }
  static VPD_FLASH_INLINE __m512 multiply_add(__m512i a, __m512i b, __m512 c) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
  }
};

inline constexpr int64_t kLanes = 16;     // words in a vector
inline constexpr int64_t kQueries = 24;   // at a time: 4 x 6 = 3 x 8 = 2 x 12
inline constexpr int64_t kKeys = 256;     // at a time
inline constexpr float kLowest = -1e30f;  // the score of no key

constexpr int64_t padded_to(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

// Keys and values of one head as the tiles read them.
struct Head {
  const uint32_t* keys;    // [vectors of keys, words, kLanes]: a vector is one word of 16 keys
  const uint32_t* values;  // [padded keys / kPack, width]: a word is a column of kPack keys
  int64_t count;           // of keys
  int64_t words;           // of a key
  int64_t width;           // of a value: whole vectors
  float factor;            // scale log2(e)
};

// What one thread works in.
struct Scratch {
  uint32_t* queries;  // [kQueries, words]
  float* scores;      // [kQueries, kKeys]
  uint32_t* weights;  // [kQueries, kKeys / kPack]
  float* high;        // [kQueries, kLanes]: the highest score in each lane
  float* sums;        // [kQueries, kLanes]: weights added up in each lane
  float* top;         // [kQueries]: the highest score of all, times the factor
  float* shrink;      // [kQueries]: what earlier weights are too large by
  float* out;         // [kQueries, width]: values, weighted and added up
};

// 2^x for x <= 0 by a polynomial on [-1/2, 1/2]: relative error 1e-7 if kFine, else 1e-4, a
// twentieth of a rounding to bfloat16.
template <bool kFine>
VPD_FLASH_INLINE __m512 power_of_two(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p;
  if constexpr (kFine) {
    p = _mm512_set1_ps(0.000153458124f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.00133999309f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.00961848907f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.0555032864f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.240226462f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69314718f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.f));
  } else {
    p = _mm512_set1_ps(0.0555f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.2426f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69314718f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.99992f));
  }
  return _mm512_scalef_ps(p, n);
}

// Scores of kRows queries and kVectors vectors of keys, held in registers; the highest of each
// lane.
template <typename Words, int kRows, int kVectors>
VPD_FLASH_INLINE void score_tile(const uint32_t* queries, const uint32_t* keys, int64_t words,
                                 float* scores, float* high) {
  __m512 tile[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) tile[r][v] = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < words; ++i) {
    __m512i key[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      key[v] = _mm512_loadu_si512(keys + (v * words + i) * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512i query = _mm512_set1_epi32(static_cast<int>(queries[r * words + i]));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        tile[r][v] = Words::multiply_add(query, key[v], tile[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    __m512 highest = _mm512_loadu_ps(high + r * kLanes);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      _mm512_storeu_ps(scores + r * kKeys + v * kLanes, tile[r][v]);
      highest = _mm512_max_ps(highest, tile[r][v]);
    }
    _mm512_storeu_ps(high + r * kLanes, highest);
  }
}

template <typename Words, int kVectors>
VPD_FLASH_INLINE void score_strip(int64_t queries, const uint32_t* from, const uint32_t* keys,
                                  int64_t words, float* scores, float* high) {
  constexpr int kRows = 6;  // with 4 vectors 24 of 32 registers
  for (int64_t r = 0; r < queries; r += kRows) {
    score_tile<Words, kRows, kVectors>(from + r * words, keys, words, scores + r * kKeys,
                                       high + r * kLanes);
  }
}

// Scores of `count` keys from `first` on, and the lowest score where no key is.
template <typename Words>
VPD_FLASH_INLINE void score(const Head& head, int64_t queries, int64_t first, int64_t count,
                            const Scratch& s) {
  const uint32_t* keys = head.keys + first * head.words;
  for (int64_t r = 0; r < kQueries; ++r) {
    _mm512_storeu_ps(s.high + r * kLanes, _mm512_set1_ps(kLowest));
  }
  for (int64_t at = 0; at < count; at += 4 * kLanes) {
    const uint32_t* from = keys + at * head.words;
    float* to = s.scores + at;
    switch ((count - at + kLanes - 1) / kLanes) {
      case 1:
        score_strip<Words, 1>(queries, s.queries, from, head.words, to, s.high);
        break;
      case 2:
        score_strip<Words, 2>(queries, s.queries, from, head.words, to, s.high);
        break;
      case 3:
        score_strip<Words, 3>(queries, s.queries, from, head.words, to, s.high);
        break;
      default:
        score_strip<Words, 4>(queries, s.queries, from, head.words, to, s.high);
    }
  }
  const int64_t even = padded_to(count, 2 * kLanes);
  if (count == even) return;
  for (int64_t r = 0; r < queries; ++r) {
    float* row = s.scores + r * kKeys;
    for (int64_t i = count; i < even; ++i) row[i] = kLowest;
    __m512 highest = _mm512_loadu_ps(row);  // without those that zeros had in the keys' place
    for (int64_t i = kLanes; i < even; i += kLanes) {
      highest = _mm512_max_ps(highest, _mm512_loadu_ps(row + i));
    }
    _mm512_storeu_ps(s.high + r * kLanes, highest);
  }
}

// Scores -> weights 2^(score factor - top), where top follows the highest score seen so far. kKeep:
// they take the scores' place besides.
template <typename Words, bool kKeep = false>
VPD_FLASH_INLINE void weigh(const Head& head, int64_t queries, int64_t count, const Scratch& s) {
  constexpr bool kFine = Words::kPack == 1;
  const __m512 factor = _mm512_set1_ps(head.factor);
  for (int64_t r = 0; r < queries; ++r) {
    const float highest = _mm512_reduce_max_ps(_mm512_loadu_ps(s.high + r * kLanes)) * head.factor;
    const float top = highest > s.top[r] ? highest : s.top[r];
    const __m512 shrink = power_of_two<true>(_mm512_set1_ps(s.top[r] - top));
    const __m512 tops = _mm512_set1_ps(top);
    s.top[r] = top;
    s.shrink[r] = _mm512_cvtss_f32(shrink);
    float* from = s.scores + r * kKeys;
    uint32_t* to = s.weights + r * (kKeys / Words::kPack);
    __m512 sum = _mm512_mul_ps(shrink, _mm512_loadu_ps(s.sums + r * kLanes));
    for (int64_t i = 0; i < count; i += 2 * kLanes) {
      const __m512 a =
          power_of_two<kFine>(_mm512_fmsub_ps(_mm512_loadu_ps(from + i), factor, tops));
      const __m512 b =
          power_of_two<kFine>(_mm512_fmsub_ps(_mm512_loadu_ps(from + i + kLanes), factor, tops));
      sum = _mm512_add_ps(sum, _mm512_add_ps(a, b));
      if constexpr (kKeep) {
        _mm512_storeu_ps(from + i, a);
        _mm512_storeu_ps(from + i + kLanes, b);
      }
      if constexpr (Words::kPack == 2) {
        _mm512_storeu_si512(to + i / 2, (__m512i)_mm512_cvtne2ps_pbh(b, a));
      } else {
        _mm512_storeu_ps(reinterpret_cast<float*>(to) + i, a);
        _mm512_storeu_ps(reinterpret_cast<float*>(to) + i + kLanes, b);
      }
    }
    _mm512_storeu_ps(s.sums + r * kLanes, sum);
  }
}

// out = shrink out + weights values, for kRows queries and kVectors vectors of columns.
template <typename Words, int kRows, int kVectors>
VPD_FLASH_INLINE void value_tile(const uint32_t* weights, const uint32_t* values, int64_t width,
                                 int64_t steps, const float* shrink, float* out) {
  constexpr int64_t kStride = kKeys / Words::kPack;
  __m512 tile[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const __m512 by = _mm512_set1_ps(shrink[r]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      tile[r][v] = _mm512_mul_ps(by, _mm512_loadu_ps(out + r * width + v * kLanes));
    }
  }
  for (int64_t i = 0; i < steps; ++i) {
    __m512i row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) row[v] = _mm512_loadu_si512(values + i * width + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m512i weight = _mm512_set1_epi32(static_cast<int>(weights[r * kStride + i]));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        tile[r][v] = Words::multiply_add(weight, row[v], tile[r][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      _mm512_storeu_ps(out + r * width + v * kLanes, tile[r][v]);
    }
  }
}

template <typename Words, int kRows, int kVectors>
VPD_FLASH_INLINE void value_strip(int64_t queries, const uint32_t* values, int64_t width,
                                  int64_t steps, const Scratch& s, int64_t column) {
  static_assert(kQueries % kRows == 0);
  for (int64_t r = 0; r < queries; r += kRows) {
    value_tile<Words, kRows, kVectors>(s.weights + r * (kKeys / Words::kPack), values + column,
                                       width, steps, s.shrink + r, s.out + r * width + column);
  }
}

// `count` keys from `first` on. Strips of up to 5 vectors, as equal as can be.
template <typename Words>
VPD_FLASH_INLINE void add_values(const Head& head, int64_t queries, int64_t first, int64_t count,
                                 const Scratch& s) {
  const uint32_t* values = head.values + first / Words::kPack * head.width;
  const int64_t steps = (count + Words::kPack - 1) / Words::kPack, width = head.width;
  const int64_t vectors = width / kLanes, strips = (vectors + 4) / 5;
  const int64_t each = (vectors + strips - 1) / strips;
  for (int64_t v = 0; v < vectors; v += each) {
    const int64_t column = v * kLanes;
    switch (vectors - v < each ? vectors - v : each) {
      case 1:
        value_strip<Words, 12, 1>(queries, values, width, steps, s, column);
        break;
      case 2:
        value_strip<Words, 12, 2>(queries, values, width, steps, s, column);
        break;
      case 3:
        value_strip<Words, 8, 3>(queries, values, width, steps, s, column);
        break;
      case 4:
        value_strip<Words, 6, 4>(queries, values, width, steps, s, column);
        break;
      default:
        value_strip<Words, 4, 5>(queries, values, width, steps, s, column);
    }
  }
}

inline VPD_FLASH void start(const Head& head, const Scratch& s) {
  for (int64_t r = 0; r < kQueries; ++r) {
    s.top[r] = kLowest;
    _mm512_storeu_ps(s.sums + r * kLanes, _mm512_setzero_ps());
  }
  for (int64_t i = 0; i < kQueries * head.width; i += kLanes) {
    _mm512_storeu_ps(s.out + i, _mm512_setzero_ps());
  }
}

inline VPD_FLASH void add_up_sums(int64_t queries, const Scratch& s) {
  for (int64_t r = 0; r < queries; ++r) {
    s.sums[r * kLanes] = _mm512_reduce_add_ps(_mm512_loadu_ps(s.sums + r * kLanes));
  }
}

// Attention of s.queries to all keys: s.out, still to be divided by the sums, which lie at
// s.sums[r * kLanes].
template <typename Words>
VPD_FLASH void attend(const Head& head, int64_t queries, const Scratch& s) {
  start(head, s);
  for (int64_t first = 0; first < head.count; first += kKeys) {
    const int64_t count = head.count - first < kKeys ? head.count - first : kKeys;
    score<Words>(head, queries, first, count, s);
    weigh<Words>(head, queries, count, s);
    add_values<Words>(head, queries, first, count, s);
  }
  add_up_sums(queries, s);
}

// The same for at most kKeys keys; their probabilities times `share` are added to map [kQueries,
// kKeys].
template <typename Words>
VPD_FLASH void attend_with_map(const Head& head, int64_t queries, float share, const Scratch& s,
                               float* map) {
  start(head, s);
  score<Words>(head, queries, 0, head.count, s);
  weigh<Words, /*kKeep=*/true>(head, queries, head.count, s);
  add_values<Words>(head, queries, 0, head.count, s);
  add_up_sums(queries, s);
  for (int64_t r = 0; r < queries; ++r) {
    const __m512 sum = _mm512_set1_ps(s.sums[r * kLanes] / share);  // divided by: one key has 1
    const float* from = s.scores + r * kKeys;
    float* to = map + r * kKeys;
    for (int64_t i = 0; i < head.count; i += kLanes) {
      const __m512 part = _mm512_div_ps(_mm512_loadu_ps(from + i), sum);
      _mm512_storeu_ps(to + i, _mm512_add_ps(_mm512_loadu_ps(to + i), part));
    }
  }
}

}  // namespace vpd::ops::cpu::flash

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
