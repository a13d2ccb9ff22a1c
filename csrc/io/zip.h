#pragma once
// Reading the directory of a zip file whose entries are stored uncompressed, as PyTorch writes
// them.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "io/mapped_file.h"

namespace vpd::io {

class ZipDirectory {
 public:
  // Reads the central directory, zip64 included. Throws std::invalid_argument if it is damaged or
  // missing.
  explicit ZipDirectory(const MappedFile& file);

  struct Entry {
    uint64_t header;  // offset of the local header
    uint64_t size;
    uint32_t crc32;
    bool stored;  // neither compressed nor encrypted
  };
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }
  bool contains(std::string_view name) const { return entries_.contains(name); }

  // Where the bytes of an entry lie in the file. Throws if it is missing, compressed, or reaches
  // past the end.
  struct Range {
    uint64_t offset;
    uint64_t size;
  };
  Range locate(std::string_view name) const;
  // The bytes of a small entry, checked against its CRC-32 (0 = not computed, a PyTorch option).
  std::string_view read(std::string_view name) const;

 private:
  const MappedFile& file_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace vpd::io
