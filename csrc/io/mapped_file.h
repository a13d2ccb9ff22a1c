#pragma once
// A file in memory without reading it: tensors are views of the mapping and keep it alive.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vpd::io {

class MappedFile : public std::enable_shared_from_this<MappedFile> {
 public:
  // Throws std::system_error if the file cannot be opened, std::invalid_argument if it is empty.
  static std::shared_ptr<MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  std::string_view bytes() const { return {data_, static_cast<size_t>(size_)}; }
  // `count` bytes from `offset`; `what` names them in the error if the file ends before.
  std::string_view bytes(uint64_t offset, uint64_t count, std::string_view what) const;

  // A tensor over the bytes from `offset`, which the caller has checked to lie inside the file.
  // Writing to it copies the page it touches and never reaches the file. Copies if the offset is
  // not aligned to the element size. name: for the error when a boolean is neither 0 nor 1.
  at::Tensor view(uint64_t offset, at::ScalarType dtype, const std::vector<int64_t>& sizes,
                  const std::vector<int64_t>& strides, std::string_view name);

 private:
  MappedFile(std::string path, char* data, uint64_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  char* data_;
  uint64_t size_;
  uint64_t copied_ = 0;
};

// Little-endian unsigned integers, wherever they lie.
uint16_t read_u16(std::string_view bytes, size_t offset);
uint32_t read_u32(std::string_view bytes, size_t offset);
uint64_t read_u64(std::string_view bytes, size_t offset);

// Product of the sizes; nothing if one is negative or the product exceeds int64.
std::optional<int64_t> element_count(const std::vector<int64_t>& sizes);

// Strides of a dense row-major tensor.
std::vector<int64_t> dense_strides(const std::vector<int64_t>& sizes);

bool is_utf8(std::string_view text);

}  // namespace vpd::io
