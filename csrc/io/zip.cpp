#include "io/zip.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "core/check.h"

// Format: PKWARE APPNOTE.TXT 6.3.x, sections 4.3 and 4.4. All numbers are little-endian and
// unaligned.
namespace vpd::io {
namespace {

constexpr std::string_view kEnd = "PK\5\6";
constexpr std::string_view kEnd64 = "PK\6\6";
constexpr std::string_view kEnd64Locator = "PK\6\7";
constexpr std::string_view kCentral = "PK\1\2";
constexpr std::string_view kLocal = "PK\3\4";
constexpr uint64_t kEndSize = 22, kEnd64Size = 56, kLocatorSize = 20, kCentralSize = 46,
                   kLocalSize = 30;
constexpr uint64_t kMaxComment = 0xFFFF;
constexpr uint32_t kIn64 = 0xFFFFFFFF;  // the real value is in the zip64 field

struct Directory {
  uint64_t offset, size, count;
};

uint64_t find_end(const MappedFile& file) {
  const std::string_view bytes = file.bytes();
  for (uint64_t tail = kEndSize; tail <= std::min(file.size(), kEndSize + kMaxComment); ++tail) {
    const uint64_t at = file.size() - tail;
    if (bytes.substr(at, 4) == kEnd && tail - kEndSize == read_u16(bytes, at + 20)) return at;
  }
  fail(file.path(), ": expected a zip file (PyTorch checkpoint) with its directory at the end, ",
       "found none in ", file.size(), " bytes; the file is truncated, download or copy it again");
}

Directory find_directory(const MappedFile& file) {
  const uint64_t end = find_end(file);
  const std::string_view bytes = file.bytes();
  if (end >= kLocatorSize && bytes.substr(end - kLocatorSize, 4) == kEnd64Locator) {
    const uint64_t at = read_u64(bytes, end - kLocatorSize + 8);
    const std::string_view end64 = file.bytes(at, kEnd64Size, "the zip64 end record");
    VPD_CHECK(end64.starts_with(kEnd64), file.path(), ": bad zip64 end record at offset ", at);
    return {read_u64(end64, 48), read_u64(end64, 40), read_u64(end64, 32)};
  }
  return {read_u32(bytes, end + 16), read_u32(bytes, end + 12), read_u16(bytes, end + 10)};
}

// Replaces the 32-bit values that are full by the 64-bit ones of the zip64 extra field, which come
// in the same order.
void widen(std::string_view extra, std::initializer_list<uint64_t*> values,
           const std::string& path) {
  while (extra.size() >= 4) {
    const uint16_t id = read_u16(extra, 0);
    const size_t length = read_u16(extra, 2);
    VPD_CHECK(length <= extra.size() - 4, path, ": bad extra field in the zip directory");
    std::string_view field = extra.substr(4, length);
    extra.remove_prefix(4 + length);
    if (id != 1) continue;
    for (uint64_t* value : values) {
      if (*value != kIn64) continue;
      VPD_CHECK(field.size() >= 8, path, ": bad zip64 field in the zip directory");
      *value = read_u64(field, 0);
      field.remove_prefix(8);
    }
  }
}

uint32_t crc32(std::string_view bytes) {
  static const auto kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (0xEDB88320u & (0u - (c & 1u)));
      table[i] = c;
    }
    return table;
  }();
  uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes)
    crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

}  // namespace

ZipDirectory::ZipDirectory(const MappedFile& file) : file_(file) {
  const Directory directory = find_directory(file);
  std::string_view rest = file.bytes(directory.offset, directory.size, "the zip directory");
  for (uint64_t i = 0; i < directory.count; ++i) {
    VPD_CHECK(rest.size() >= kCentralSize && rest.starts_with(kCentral), file.path(),
              ": the zip directory must have ", directory.count, " entries, entry ", i,
              " is damaged");
    const uint16_t flags = read_u16(rest, 8);
    const uint16_t method = read_u16(rest, 10);
    uint64_t packed = read_u32(rest, 20);
    uint64_t size = read_u32(rest, 24);
    uint64_t header = read_u32(rest, 42);
    const size_t name_size = read_u16(rest, 28);
    const size_t extra_size = read_u16(rest, 30);
    const size_t comment_size = read_u16(rest, 32);
    const uint32_t crc = read_u32(rest, 16);
    rest.remove_prefix(kCentralSize);
    VPD_CHECK(rest.size() >= name_size + extra_size + comment_size, file.path(),
              ": the zip directory ends inside entry ", i);
    std::string name(rest.substr(0, name_size));
    VPD_CHECK(is_utf8(name), file.path(), ": the name of zip entry ", i, " is not UTF-8");
    widen(rest.substr(name_size, extra_size), {&size, &packed, &header}, file.path());
    rest.remove_prefix(name_size + extra_size + comment_size);
    const bool stored = method == 0 && (flags & 1) == 0 && size == packed;
    VPD_CHECK(entries_.emplace(name, Entry{header, size, crc, stored}).second, file.path(),
              ": zip entry '", name, "' is there twice");
  }
}

ZipDirectory::Range ZipDirectory::locate(std::string_view name) const {
  const auto found = entries_.find(name);
  VPD_CHECK(found != entries_.end(), file_.path(), ": zip entry '", name, "' is missing");
  const Entry& entry = found->second;
  VPD_CHECK(entry.stored, file_.path(), ": zip entry '", name,
            "' must be stored as it is, got a compressed or encrypted one; unpack the archive with "
            "PyTorch and save it again");
  // Names and extra fields of a local header may differ in length from the directory's copy.
  const std::string_view local = file_.bytes(entry.header, kLocalSize, "a zip entry's header");
  VPD_CHECK(local.starts_with(kLocal), file_.path(), ": zip entry '", name,
            "' has no local header");
  const uint64_t offset = entry.header + kLocalSize + read_u16(local, 26) + read_u16(local, 28);
  file_.bytes(offset, entry.size, "zip entry '" + std::string(name) + "'");
  return {offset, entry.size};
}

std::string_view ZipDirectory::read(std::string_view name) const {
  const auto [offset, size] = locate(name);
  const std::string_view bytes = file_.bytes(offset, size, name);
  const uint32_t expected = entries_.find(name)->second.crc32;
  VPD_CHECK(expected == 0 || crc32(bytes) == expected, file_.path(), ": zip entry '", name,
            "' fails its checksum; the file is damaged, download or copy it again");
  return bytes;
}

}  // namespace vpd::io
