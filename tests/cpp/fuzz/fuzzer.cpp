// What libFuzzer calls. The target and a file to write inputs to come before its own arguments:
//   vpd_fuzz TARGET FILE [libFuzzer's arguments]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "readers.h"

namespace {

std::string target, path;

}  // namespace

extern "C" {

size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc < 3) {
    std::fprintf(stderr, "usage: vpd_fuzz TARGET FILE [libFuzzer's arguments]\n");
    std::exit(2);
  }
  target = (*argv)[1];
  path = (*argv)[2];
  (*argv)[2] = (*argv)[0];
  *argv += 2;
  *argc -= 2;
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vpd::fuzz::accepts(target, {reinterpret_cast<const char*>(data), size}, path);
  return 0;
}

// The length that opens a safetensors file counts its header: half of the time it follows a header
// that grew or shrank, so that what lies behind the first check is reached.
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  uint64_t length = 0;
  const size_t before = size;
  if (before >= 8) std::memcpy(&length, data, 8);
  size = LLVMFuzzerMutate(data, size, most);
  if (target == "safetensors" && seed % 2 == 0 && std::min(before, size) >= 8 &&
      length <= before - 8) {
    length += size - before;
    std::memcpy(data, &length, 8);
  }
  return size;
}

}  // extern "C"
