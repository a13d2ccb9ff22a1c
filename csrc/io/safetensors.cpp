#include "io/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <numeric>
#include <set>
#include <system_error>

#include "core/check.h"

namespace vpd::io {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr size_t kAlignment = 64;             // of the data behind the header

// The file being written; removed again unless it was committed.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& target) : target_(target) {
    static std::atomic<int> counter{0};
    path_ = target + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) fail_with_errno();
  }
  TemporaryFile(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (fd_ >= 0) {
      ::close(fd_);
      ::unlink(path_.c_str());
    }
  }

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_with_errno();
      bytes.remove_prefix(static_cast<size_t>(written));
    }
  }

  void commit() {
    if (::fsync(fd_) != 0) fail_with_errno();
    if (::rename(path_.c_str(), target_.c_str()) != 0) fail_with_errno();
    ::close(fd_);
    fd_ = -1;
  }

 private:
  [[noreturn]] void fail_with_errno() const {
    throw std::system_error(errno, std::generic_category(), target_);
  }

  std::string target_;
  std::string path_;
  int fd_ = -1;
};

void check_names(const NamedTensors& tensors, const Metadata& metadata, const std::string& path) {
  std::set<std::string_view> seen;
  for (const auto& [name, tensor] : tensors) {
    VPD_CHECK(is_utf8(name) && name != "__metadata__", path, ": tensor name must be UTF-8 and not ",
              "__metadata__, got '", name, "'");
    VPD_CHECK(seen.insert(name).second, path, ": tensor name '", name, "' is given twice");
    VPD_CHECK(tensor.defined() && safetensors_dtype_name(tensor.scalar_type()), path, ": tensor '",
              name, "' must be F64 F32 F16 BF16 I64 I32 I16 I8 U8 or BOOL, got ",
              tensor.defined() ? c10::toString(tensor.scalar_type()) : "no tensor");
    VPD_CHECK(tensor.layout() == at::kStrided && !tensor.is_meta(), path, ": tensor '", name,
              "' must be dense and have data (not on the meta device)");
  }
  seen.clear();
  for (const auto& [key, value] : metadata) {
    VPD_CHECK(is_utf8(key) && is_utf8(value), path, ": metadata '", key, "' must be UTF-8");
    VPD_CHECK(seen.insert(key).second, path, ": metadata key '", key, "' is given twice");
  }
}

}  // namespace

SafetensorsFile read_safetensors(const std::shared_ptr<MappedFile>& file) {
  const uint64_t length = read_u64(file->bytes(0, 8, "the safetensors header length"), 0);
  VPD_CHECK(length >= 2 && length <= kMaxHeader && length <= file->size() - 8, file->path(),
            ": safetensors header length must be in [2, ", kMaxHeader, "] and inside the file of ",
            file->size(), " bytes, got ", length,
            "; the file is truncated or not a safetensors file");
  const std::string_view json = file->bytes(8, length, "the safetensors header");
  VPD_CHECK(json.front() == '{', file->path(), ": a safetensors header must begin with '{'");
  const uint64_t data = 8 + length;
  SafetensorsHeader header = parse_safetensors_header(json, file->size() - data, file->path());

  SafetensorsFile result;
  result.metadata = std::move(header.metadata);
  for (SafetensorsEntry& entry : header.entries) {
    at::Tensor tensor = file->view(data + entry.begin, entry.dtype, entry.shape,
                                   dense_strides(entry.shape), entry.name);
    result.tensors.emplace_back(std::move(entry.name), std::move(tensor));
  }
  return result;
}

void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const Metadata& metadata) {
  check_names(tensors, metadata, path);
  // Wide elements first, so that every tensor lies aligned; the header keeps the caller's order.
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return tensors[a].second.element_size() > tensors[b].second.element_size();
  });

  SafetensorsHeader header;
  header.metadata = metadata;
  for (const auto& [name, tensor] : tensors) {
    header.entries.push_back({name, tensor.scalar_type(), tensor.sizes().vec(), 0, 0});
  }
  uint64_t offset = 0;
  for (const size_t i : order) {
    header.entries[i].begin = offset;
    offset += tensors[i].second.nbytes();
    header.entries[i].end = offset;
  }

  std::string json = format_safetensors_header(header);
  json.append((kAlignment - (8 + json.size()) % kAlignment) % kAlignment, ' ');
  VPD_CHECK(json.size() <= kMaxHeader, path, ": safetensors header must be at most ", kMaxHeader,
            " bytes, got ", json.size());
  const uint64_t length = json.size();

  TemporaryFile file(path);
  file.write({reinterpret_cast<const char*>(&length), sizeof(length)});
  file.write(json);
  for (const size_t i : order) {
    const at::Tensor dense = tensors[i].second.detach().cpu().contiguous();
    file.write({static_cast<const char*>(dense.const_data_ptr()), dense.nbytes()});
  }
  file.commit();
}

}  // namespace vpd::io
