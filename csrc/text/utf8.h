#pragma once
// Text between its bytes and its characters.
#include <string>
#include <string_view>

namespace vpd::text {

// Throws std::invalid_argument, naming `what`, if the bytes are not valid UTF-8.
std::u32string decode_utf8(std::string_view bytes, const char* what);

void append_utf8(std::string& out, char32_t code);
std::string encode_utf8(std::u32string_view characters);

}  // namespace vpd::text
