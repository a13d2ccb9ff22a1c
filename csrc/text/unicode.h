#pragma once
// What CLIP's text pattern asks about characters, and their small letters.
#include <string>
#include <string_view>

namespace vpd::text {

bool is_letter(char32_t code);  // general category L
bool is_number(char32_t code);  // general category N
bool is_space(char32_t code);   // White_Space

// Every character's lower case, as str.lower() of Python. A capital sigma becomes the final form
// behind a letter and before none; marks between them are not looked through.
std::u32string lower(std::u32string_view text);

}  // namespace vpd::text
