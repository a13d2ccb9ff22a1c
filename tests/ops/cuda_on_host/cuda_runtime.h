#pragma once
// Enough of CUDA to run the kernels of csrc/ops/cuda on a CPU: the threads of a block are fibers
// that take turns where they wait for each other, blocks run one after another. Races, memory
// spaces and speed are not what it shows; results, and reads and writes beyond a buffer (under the
// address sanitizer), are.
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)
#define __restrict__
#define __CUDA_ARCH__ 800

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
inline int capability = 80;
inline cudaError_t cudaGetDevice(int*) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = which == cudaDevAttrComputeCapabilityMajor ? capability / 10 : capability % 10;
  return cudaSuccess;
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

inline constexpr unsigned kWarp = 32;
inline constexpr size_t kStack = 64 * 1024;

struct Barrier {
  unsigned waiting = 0;
  uint64_t generation = 0;
};

struct Thread {
  ucontext_t context{};  // where it begins; it goes on by longjmp, which costs no system call
  jmp_buf place;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool begun = false, done = false;
};

struct Warp {
  Barrier barrier;
  uint32_t words[kWarp][8];  // what the lanes hand to each other
};

inline std::vector<Thread> threads;
inline std::vector<Warp> warps;
inline Barrier block_barrier;
inline jmp_buf scheduler;
inline const std::function<void()>* kernel;

inline void yield() {
  if (_setjmp(threads[threadIdx.x].place) == 0) _longjmp(scheduler, 1);
}

inline void resume(Thread& thread) {
  if (_setjmp(scheduler) != 0) return;
  if (thread.begun) _longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.context);
}

inline void wait(Barrier& barrier, unsigned count) {
  const uint64_t generation = barrier.generation;
  if (++barrier.waiting == count) {
    barrier.waiting = 0;
    ++barrier.generation;
  }
  for (int turns = 0; barrier.generation == generation; ++turns) {
    if (turns > 1000000) std::abort();  // some thread never comes
    yield();
  }
}

inline void enter() {
  (*kernel)();
  threads[threadIdx.x].done = true;
  yield();
}

inline Warp& warp() { return warps[threadIdx.x / kWarp]; }
inline unsigned lane() { return threadIdx.x % kWarp; }

inline void run_block(unsigned count) {
  for (Thread& thread : threads) {
    thread.begun = thread.done = false;
    getcontext(&thread.context);
    thread.context.uc_stack = {thread.stack.get(), 0, kStack};
    makecontext(&thread.context, reinterpret_cast<void (*)()>(enter), 0);
  }
  for (unsigned left = count; left > 0;) {
    for (unsigned i = 0; i < count; ++i) {
      if (threads[i].done) continue;
      threadIdx = dim3(i);
      resume(threads[i]);
      if (threads[i].done) --left;
    }
  }
}

inline void launch(dim3 grid, unsigned count, size_t, cudaStream_t, std::function<void()> body) {
  kernel = &body;
  gridDim = grid;
  blockDim = dim3(count);
  threads.resize(count);
  warps = std::vector<Warp>((count + kWarp - 1) / kWarp);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        run_block(count);
      }
    }
  }
}

// Of the lane that `source` names, if there is one.
template <typename T, typename Source>
T shuffled(T value, Source source) {
  static_assert(sizeof(T) <= sizeof warps[0].words[0]);
  Warp& here = warp();
  const unsigned mine = lane();
  std::memcpy(here.words[mine], &value, sizeof value);
  wait(here.barrier, kWarp);
  const unsigned from = source(mine);
  if (from < kWarp) std::memcpy(&value, here.words[from], sizeof value);
  wait(here.barrier, kWarp);
  return value;
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait(emulation::block_barrier, blockDim.x); }
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned offset) {
  return emulation::shuffled(value, [=](unsigned lane) { return lane + offset; });
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return emulation::shuffled(value, [=](unsigned lane) { return lane ^ mask; });
}
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline double normcdf(double x) { return std::erfc(-x * 0.70710678118654752) / 2; }
inline float normcdff(float x) { return static_cast<float>(normcdf(x)); }
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to += value;
  return before;
}
