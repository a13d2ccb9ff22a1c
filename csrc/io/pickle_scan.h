#pragma once
// A look at a pickle before somebody else's machine runs it.
#include <string_view>

namespace vpd::io {

// Throws std::invalid_argument unless `bytes` are opcodes up to STOP (protocol 0 to 5) whose
// arguments lie inside of them and whose memo slots are at most as many as bytes. What these ask
// for is memory that Python's machine takes before it looks: gigabytes for some hundred bytes.
void check_pickle(std::string_view bytes);

}  // namespace vpd::io
