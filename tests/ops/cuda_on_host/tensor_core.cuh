#pragma once
// In the place of csrc/ops/cuda/tensor_core.cuh: the product of a warp, put together from what its
// lanes hold by the layout that the PTX ISA gives for mma.m16n8k16.
#include "common.cuh"

namespace vpd::ops::cuda {

template <typename T>
uint32_t pair_of(T*, float low, float high) {
  T pair[2];
  store(pair[0], low);
  store(pair[1], high);
  uint32_t word;
  std::memcpy(&word, pair, sizeof word);
  return word;
}

template <typename T>
float number_of(uint32_t word, int half) {
  T pair[2];
  std::memcpy(pair, &word, sizeof word);
  return load(pair[half]);
}

template <typename T>
void multiply_add(T*, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&c)[4]) {
  emulation::Warp& warp = emulation::warp();
  const unsigned lane = emulation::lane();
  const uint32_t own[6] = {a[0], a[1], a[2], a[3], b0, b1};
  std::memcpy(warp.words[lane], own, sizeof own);
  emulation::wait(warp.barrier, emulation::kWarp);
  for (int i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned pair = k % 8 / 2, deep = k / 8;
      const uint32_t left = warp.words[row % 8 * 4 + pair][row / 8 + 2 * deep];
      const uint32_t right = warp.words[column * 4 + pair][4 + deep];
      c[i] += number_of<T>(left, k % 2) * number_of<T>(right, k % 2);
    }
  }
  emulation::wait(warp.barrier, emulation::kWarp);
}

}  // namespace vpd::ops::cuda
