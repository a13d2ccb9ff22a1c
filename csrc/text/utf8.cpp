#include "text/utf8.h"

#include "core/check.h"
#include "io/mapped_file.h"

namespace vpd::text {

std::u32string decode_utf8(std::string_view bytes, const char* what) {
  VPD_CHECK(io::is_utf8(bytes), what, ": expected UTF-8 text, got invalid bytes");
  std::u32string out;
  for (size_t i = 0; i < bytes.size();) {
    const auto lead = static_cast<uint8_t>(bytes[i]);
    const size_t extra = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    char32_t code = extra == 0 ? lead : lead & (0x3Fu >> extra);
    for (size_t k = 1; k <= extra; ++k)
      code = (code << 6) | (static_cast<uint8_t>(bytes[i + k]) & 0x3Fu);
    out.push_back(code);
    i += extra + 1;
  }
  return out;
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6)), put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12)), put(0x80 | ((code >> 6) & 0x3F)), put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18)), put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F)), put(0x80 | (code & 0x3F));
  }
}

std::string encode_utf8(std::u32string_view characters) {
  std::string out;
  for (const char32_t code : characters) append_utf8(out, code);
  return out;
}

}  // namespace vpd::text
