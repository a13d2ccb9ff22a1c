#include "readers.h"

#include <ATen/ops/empty.h>
#include <sanitizer/asan_interface.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <stdexcept>
#include <system_error>

#include "io/json.h"
#include "io/pickle.h"
#include "io/pickle_scan.h"
#include "io/safetensors.h"
#include "io/torch_zip.h"
#include "io/zip.h"
#include "text/tokenizer.h"

namespace vpd::fuzz {
namespace {

// A copy whose end is the end of its memory: reading on is found.
class Exact {
 public:
  explicit Exact(const std::string& text) : size_(text.size()), bytes_(new char[text.size()]) {
    std::memcpy(bytes_.get(), text.data(), size_);
  }
  std::string_view view() const { return {bytes_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<char[]> bytes_;
};

// The rest of a mapped file's last page may not be read either.
class Tail {
 public:
  explicit Tail(const io::MappedFile& file) {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    begin_ = file.bytes().data() + file.size();
    size_ = (page - file.size() % page) % page;
    ASAN_POISON_MEMORY_REGION(begin_, size_);
  }
  Tail(const Tail&) = delete;
  ~Tail() { ASAN_UNPOISON_MEMORY_REGION(begin_, size_); }

 private:
  const char* begin_ = nullptr;
  size_t size_ = 0;
};

[[noreturn]] void wrong(const std::string& what) { throw std::logic_error(what); }

// Reads every byte that a tensor says is its own.
void touch(const io::NamedTensors& tensors) {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.numel() == 0) continue;
    const auto* bytes = static_cast<const uint8_t*>(tensor.const_data_ptr());
    int64_t last = 0;
    for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
    const auto item = static_cast<int64_t>(tensor.element_size());
    for (int64_t i = 0; i < (last + 1) * item; ++i) sum += bytes[i];
  }
  if (sum == ~0ull) wrong("so large a sum");
}

void read_safetensors(const std::string&, const std::string& path) {
  const auto file = io::MappedFile::open(path);
  const Tail tail(*file);
  touch(io::read_safetensors(file).tensors);
}

void read_torch(const std::string&, const std::string& path) {
  const auto file = io::MappedFile::open(path);
  const Tail tail(*file);
  touch(io::read_torch(file).tensors);
}

void read_zip(const std::string&, const std::string& path) {
  const auto file = io::MappedFile::open(path);
  const Tail tail(*file);
  const io::ZipDirectory zip(*file);
  for (const auto& [name, entry] : zip.entries()) {
    try {
      zip.read(name);
    } catch (const std::invalid_argument&) {
    }
  }
}

void read_pickle(const std::string& input, const std::string& path) {
  const Exact exact(input);
  io::check_pickle(exact.view());
  const std::vector<char> storage(1 << 12);
  const auto tensor = [&](const std::string&, at::ScalarType dtype, int64_t numel, int64_t,
                          const std::vector<int64_t>& sizes, const std::vector<int64_t>&) {
    // What the machine promises of these numbers.
    if (numel < 0 || io::element_count(sizes).value_or(-1) < 0) wrong("a tensor of bad sizes");
    return at::empty({0}, at::TensorOptions(dtype));
  };
  const io::Pickle pickle(exact.view(), path, tensor);
  for (const uint32_t index : pickle.root().items) {
    if (pickle[index].kind == io::PickleValue::Kind::kMark) break;
  }
}

void read_json(const std::string& input, const std::string& path) {
  io::parse_json(Exact(input).view(), path);
}

void read_merges(const std::string&, const std::string& path) {
  const text::Tokenizer tokenizer(path);
  if (tokenizer.end() <= tokenizer.start()) wrong("markers in another order");
}

// Ids of every text are known ones, and few: a byte is a token at most.
void encode_text(const std::string& input, const std::string& path) {
  static const text::Tokenizer tokenizer = [&path] {
    const std::string merges = path + ".merges";
    FILE* file = std::fopen(merges.c_str(), "wb");
    std::fputs("t h\nth e</w>\nr e\nre d</w>\n\xC3\x83 \xC2\xA9</w>\nl l\n", file);
    std::fclose(file);
    text::Tokenizer made(merges);
    ::unlink(merges.c_str());
    return made;
  }();
  const Exact exact(input);
  const std::string clean = text::clean_text(exact.view());
  const std::vector<int64_t> ids = tokenizer.encode(exact.view());
  if (ids.size() > clean.size()) wrong("more tokens than bytes");
  for (const int64_t id : ids) {
    if (id < 0 || id > tokenizer.end()) wrong("an unknown token");
  }
  if (text::clean_text(clean) != clean) wrong("cleaning what is clean changes it");
  const text::Tokens row = tokenizer({input}, 8);
  if (row.ids.numel() != 8) wrong("a row of another length");
}

}  // namespace

bool accepts(const std::string& target, const std::string& input, const std::string& path) {
  static const std::map<std::string, void (*)(const std::string&, const std::string&)> kReaders = {
      {"safetensors", read_safetensors},
      {"torch-zip", read_torch},
      {"zip", read_zip},
      {"pickle", read_pickle},
      {"json", read_json},
      {"merges", read_merges},
      {"text", encode_text},
  };
  const auto reader = kReaders.find(target);
  if (reader == kReaders.end()) wrong("no target " + target);
  std::ofstream(path, std::ios::binary) << input;
  try {
    reader->second(input, path);
    return true;
  } catch (const std::invalid_argument&) {
  } catch (const std::system_error&) {
  }
  return false;
}

}  // namespace vpd::fuzz
