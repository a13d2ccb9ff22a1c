#include "ops/cpu/cpu_level.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "core/check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace vpd::ops::cpu {
namespace {

constexpr std::string_view kNames[] = {"baseline", "avx2", "avx512", "avx512_bf16"};

Level level_of_processor() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("x86-64-v4")) {
    return Level::kAVX512BF16;
  }
  if (__builtin_cpu_supports("x86-64-v4")) return Level::kAVX512;
  if (__builtin_cpu_supports("x86-64-v3")) return Level::kAVX2;
#endif
  return Level::kBaseline;
}

Level chosen_level() {
  const Level most = level_of_processor();
  const char* asked = std::getenv("VPD_CPU");
  if (!asked || !*asked) return most;
  const auto* found = std::find(std::begin(kNames), std::end(kNames), asked);
  VPD_CHECK(found != std::end(kNames),
            "VPD_CPU: expected baseline, avx2, avx512 or avx512_bf16, got \"", asked, '"');
  return std::min(most, static_cast<Level>(found - std::begin(kNames)));
}

}  // namespace

Level cpu_level() {
  static const Level level = chosen_level();
  return level;
}

std::string name_of(Level level) { return std::string(kNames[static_cast<int>(level)]); }

bool has_tiles() {
#if defined(__x86_64__)
  static const bool found = [] {
    constexpr unsigned kBFloat16Tiles = 1u << 22;
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kBFloat16Tiles);
  }();
  return found;
#else
  return false;
#endif
}

}  // namespace vpd::ops::cpu
