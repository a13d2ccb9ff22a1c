#pragma once

namespace vpd {

// What the C library does with freed memory, in this process. Without effect where it is not glibc.
enum class FreedMemory {
  // Kept for the next step: blocks that come back page by page cost a training step of a small
  // network a sixth of its time. The process keeps its peak.
  kKept,
  // Blocks of a megabyte and more go back to the system at once. glibc otherwise learns to carve
  // them out of its heap, whose holes cost a training step of a large network half its memory.
  kReturned,
};
void set_freed_memory(FreedMemory policy);

}  // namespace vpd
