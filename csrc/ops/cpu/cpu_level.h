#pragma once
#include <string>

namespace vpd::ops::cpu {

// Instruction sets that kernels are built for, each with all before it. kAVX512BF16 also multiplies
// pairs of bfloat16 numbers.
enum class Level { kBaseline, kAVX2, kAVX512, kAVX512BF16 };

// The highest that the processor has, or the one of the environment variable VPD_CPU (baseline,
// avx2, avx512, avx512_bf16) if that is lower: so that each can be tested. Looked at once. Throws
// std::invalid_argument for another name.
Level cpu_level();
std::string name_of(Level level);

// Whether the processor has tiles (AMX) that multiply matrices of bfloat16 numbers.
bool has_tiles();

}  // namespace vpd::ops::cpu
