#include "io/mapped_file.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "core/check.h"

namespace vpd::io {
namespace {

static_assert(std::endian::native == std::endian::little, "weights are little-endian on disk");

[[noreturn]] void fail_with_errno(int error, const std::string& path) {
  throw std::system_error(error, std::generic_category(), path);
}

template <typename T>
T read_number(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// Elements from the first to the last one that a strided tensor with elements touches.
int64_t span_of(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  int64_t last = 0;
  for (size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
  return last + 1;
}

void check_booleans(std::string_view bytes, const std::string& path, std::string_view name) {
  for (const char byte : bytes) {
    VPD_CHECK(byte == 0 || byte == 1, path, ": booleans of tensor '", name,
              "' must be stored as 0 or 1, got ", static_cast<int>(static_cast<uint8_t>(byte)));
  }
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_with_errno(errno, path);
  struct stat info{};
  void* data = nullptr;
  int error = 0;
  if (::fstat(fd, &info) != 0) {
    error = errno;
  } else if (S_ISDIR(info.st_mode)) {
    error = EISDIR;
  } else if (info.st_size > 0) {
    // Private and writable: PyTorch has no read-only tensors, and an in-place write must not fault
    // or reach the file.
    data = ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (data == MAP_FAILED) error = errno;
  }
  ::close(fd);
  if (error != 0) fail_with_errno(error, path);
  VPD_CHECK(info.st_size > 0, path, ": expected weights, got an empty file (0 bytes)");
  return std::shared_ptr<MappedFile>(
      new MappedFile(path, static_cast<char*>(data), static_cast<uint64_t>(info.st_size)));
}

MappedFile::~MappedFile() { ::munmap(data_, static_cast<size_t>(size_)); }

std::string_view MappedFile::bytes(uint64_t offset, uint64_t count, std::string_view what) const {
  VPD_CHECK(offset <= size_ && count <= size_ - offset, path_, ": ", what, " needs ", count,
            " bytes at offset ", offset, ", the file has ", size_,
            " bytes; it is damaged or truncated");
  return bytes().substr(static_cast<size_t>(offset), static_cast<size_t>(count));
}

at::Tensor MappedFile::view(uint64_t offset, at::ScalarType dtype,
                            const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                            std::string_view name) {
  // Strides of what has no elements may be any: they are not looked at.
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) {
    return at::empty(sizes, at::TensorOptions(dtype));
  }
  const uint64_t item = c10::elementSize(dtype);
  const uint64_t count = static_cast<uint64_t>(span_of(sizes, strides)) * item;
  char* start = data_ + offset;
  if (dtype == at::kBool) check_booleans({start, static_cast<size_t>(count)}, path_, name);
  if (offset % item == 0) {
    return at::from_blob(
        start, sizes, strides, [keep = shared_from_this()](void*) {}, at::TensorOptions(dtype));
  }
  // Copied into memory of its own; `words` is aligned for every dtype. The limit stops a small file
  // from naming one storage over and over; honest files stay far below.
  copied_ += count;
  VPD_CHECK(copied_ / 4 <= size_, path_, ": tensors must not need more than 4 times the file's ",
            size_, " bytes; the file is damaged");
  auto words = std::make_shared<std::vector<uint64_t>>((count + 7) / 8);
  if (count > 0) std::memcpy(words->data(), start, count);
  return at::from_blob(words->data(), sizes, strides, [words](void*) {}, at::TensorOptions(dtype));
}

uint16_t read_u16(std::string_view bytes, size_t offset) {
  return read_number<uint16_t>(bytes, offset);
}
uint32_t read_u32(std::string_view bytes, size_t offset) {
  return read_number<uint32_t>(bytes, offset);
}
uint64_t read_u64(std::string_view bytes, size_t offset) {
  return read_number<uint64_t>(bytes, offset);
}

std::optional<int64_t> element_count(const std::vector<int64_t>& sizes) {
  int64_t count = 1;  // with empty dimensions as 1, since strides are computed so
  bool empty = false;
  for (const int64_t size : sizes) {
    if (size < 0) return std::nullopt;
    empty = empty || size == 0;
    if (__builtin_mul_overflow(count, std::max<int64_t>(size, 1), &count)) return std::nullopt;
  }
  return empty ? 0 : count;
}

std::vector<int64_t> dense_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;)
    strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  return strides;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const int extra = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4 || text.size() - i <= static_cast<size_t>(extra)) return false;
    uint32_t code = lead & (0x3Fu >> extra);
    for (int k = 1; k <= extra; ++k) {
      const auto next = static_cast<uint8_t>(text[i + static_cast<size_t>(k)]);
      if ((next & 0xC0) != 0x80) return false;
      code = (code << 6) | (next & 0x3Fu);
    }
    // Overlong forms, surrogates and values past Unicode.
    constexpr uint32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
    if (code < kSmallest[extra] || (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF)
      return false;
    i += static_cast<size_t>(extra) + 1;
  }
  return true;
}

}  // namespace vpd::io
