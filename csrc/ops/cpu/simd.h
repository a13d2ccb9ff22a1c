#pragma once
// What the CPU kernels share: loops compiled for several instruction sets and chosen at run time,
// and the functions those loops need in a form that compilers turn into vector code.
//
// A kernel is a struct with an always-inline `run`; run_fastest<Kernel>(arguments...) runs its best
// build. Lambdas and calls to ordinary functions would leave the chosen instruction set, so kernels
// use neither in their inner loops.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "ops/cpu/cpu_level.h"

#define VPD_INLINE inline __attribute__((always_inline))

namespace vpd::ops::cpu {

template <typename Kernel, typename... Args>
void run_baseline(Args... args) {
  Kernel::run(args...);
}

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
template <typename Kernel, typename... Args>
__attribute__((target("arch=x86-64-v3"))) void run_avx2(Args... args) {
  Kernel::run(args...);
}

#if defined(__clang__)
#define VPD_AVX512 "arch=x86-64-v4"
#else
#define VPD_AVX512 "arch=x86-64-v4,prefer-vector-width=512"
#endif
template <typename Kernel, typename... Args>
__attribute__((target(VPD_AVX512))) void run_avx512(Args... args) {
  Kernel::run(args...);
}

template <typename Kernel, typename... Args>
void run_fastest(Args... args) {
  switch (cpu_level()) {
    case Level::kAVX512BF16:
    case Level::kAVX512:
      return run_avx512<Kernel>(args...);
    case Level::kAVX2:
      return run_avx2<Kernel>(args...);
    case Level::kBaseline:
      return run_baseline<Kernel>(args...);
  }
}

// For kernels written in vectors of a given size instead of plain loops.
template <template <int kBytes> typename Kernel, typename... Args>
void run_widest(Args... args) {
  switch (cpu_level()) {
    case Level::kAVX512BF16:
    case Level::kAVX512:
      return run_avx512<Kernel<64>>(args...);
    case Level::kAVX2:
      return run_avx2<Kernel<32>>(args...);
    case Level::kBaseline:
      return run_baseline<Kernel<16>>(args...);
  }
}
#else
template <template <int kBytes> typename Kernel, typename... Args>
void run_widest(Args... args) {
  run_baseline<Kernel<16>>(args...);
}

template <typename Kernel, typename... Args>
void run_fastest(Args... args) {  // NEON is in every aarch64 baseline
  run_baseline<Kernel>(args...);
}
#endif

// Storage type -> type to compute in, and back (bfloat16 rounds to nearest even).
VPD_INLINE float load(const float& x) { return x; }
VPD_INLINE double load(const double& x) { return x; }
VPD_INLINE float load(const c10::BFloat16& x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.x) << 16);
}
VPD_INLINE float load(const c10::Half& x) { return x; }
VPD_INLINE void store(float& to, float x) { to = x; }
VPD_INLINE void store(double& to, double x) { to = x; }
VPD_INLINE void store(c10::BFloat16& to, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  to.x = static_cast<uint16_t>(x != x ? 0x7FC0u : rounded);
}
VPD_INLINE void store(c10::Half& to, float x) { to = x; }

// x cut to [-limit, limit]. By the bits, because compilers turn the comparison of floats into
// branches around all that follows. NaN becomes the limit.
VPD_INLINE float cut(float x, float limit) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7FFFFFFFu;
  const uint32_t most = std::bit_cast<uint32_t>(limit);
  return std::bit_cast<float>((magnitude < most ? magnitude : most) | (bits & 0x80000000u));
}

// e^x for |x| <= 87, where it and its reciprocal are normal numbers. e^x = 2^n 2^f with |f| <= 1/2,
// 2^f by a minimax polynomial of degree 6: relative error 1e-7 (without fused multiply-add 6e-8 |x|
// more).
VPD_INLINE float exp_within(float x) {
  constexpr float kLog2E = 1.44269504f,
                  kShift = 12582912.f;  // 1.5 * 2^23: the low bits of x + kShift are round(x)
  const float shifted = x * kLog2E + kShift;
  const float f = x * kLog2E - (shifted - kShift);
  float p = 0.000153458124f;
  p = p * f + 0.00133999309f;
  p = p * f + 0.00961848907f;
  p = p * f + 0.0555032864f;
  p = p * f + 0.240226462f;
  p = p * f + 0.693147182f;
  p = p * f + 1.f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) +
                              (std::bit_cast<uint32_t>(shifted) << 23));
}

// e^x for |x| < limit, e^(+-limit) beyond; NaN is lost, and callers bring it back.
VPD_INLINE float exp(float x, float limit = 87.f) { return exp_within(cut(x, limit)); }
VPD_INLINE double exp(double x, double /*limit*/ = 0) { return std::exp(x); }

// 1 / x for 2^-126 <= x < 2^126, to the last bit or two: a guess by the exponent bits (within 5.1
// %), a step of third order and one of Newton's. Vector division would be what the kernels wait
// for.
VPD_INLINE float reciprocal(float x) {
  float y = std::bit_cast<float>(0x7EF311C7u - std::bit_cast<uint32_t>(x));
  const float miss = 1.f - x * y;
  y = y + y * (miss + miss * miss);
  return y + y * (1.f - x * y);
}
VPD_INLINE double reciprocal(double x) { return 1 / x; }

VPD_INLINE float sigmoid(float x) { return reciprocal(1.f + exp(-x)); }
VPD_INLINE double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Distribution function and density of the standard normal. float: erfc(u) e^(u^2) as a polynomial
// in 1 / (1 + 0.34 u), u = |x| / sqrt 2, |x| cut to 13 (the form of Abramowitz & Stegun 7.1.26,
// refitted with 7 terms: 3e-9 before rounding).
VPD_INLINE void normal(float x, float& distribution, float& density) {
  const float near = cut(x, 13.f), u = (near < 0 ? -near : near) * 0.70710678f;
  const float t = reciprocal(1.f + 0.34f * u);
  float p = -0.24620050f;
  p = p * t + 1.0839760f;
  p = p * t - 1.2440183f;
  p = p * t + 1.2041415f;
  p = p * t - 0.28207725f;
  p = p * t + 0.30388841f;
  p = p * t + 0.18029009f;
  const float gauss = exp_within(-0.5f * near * near);
  const float tail = 0.5f * gauss * (p * t);
  distribution = x < 0 ? tail : 1.f - tail;
  density = 0.39894228f * gauss;
}
VPD_INLINE void normal(double x, double& distribution, double& density) {
  distribution = 0.5 * std::erfc(-x * 0.70710678118654752);
  density = 0.39894228040143268 * std::exp(-0.5 * x * x);
}

}  // namespace vpd::ops::cpu
