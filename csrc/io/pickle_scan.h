#pragma once
// A look at a pickle before somebody else's machine runs it.
#include <string_view>

namespace vpd::io {

// Throws std::invalid_argument unless `pickle` is opcodes up to STOP (protocol 0 to 5) whose
// arguments lie inside of it and whose memo slots are at most as many as its bytes. What these ask
// for is memory that Python's machine takes before it looks: gigabytes for some hundred bytes.
void check_pickle(std::string_view pickle);

}  // namespace vpd::io
