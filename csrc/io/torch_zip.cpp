#include "io/torch_zip.h"

#include <algorithm>
#include <map>
#include <optional>

#include "core/check.h"
#include "io/pickle.h"
#include "io/zip.h"

namespace vpd::io {
namespace {

using Kind = PickleValue::Kind;
using Dict = std::map<std::string, const PickleValue*>;

constexpr uint64_t kMaxPickle = 64ull << 20;
constexpr std::string_view kPickleName = "data.pkl";

// Text keys of a dict; a repeated key keeps its last value, as in Python.
Dict text_items(const Pickle& pickle, const PickleValue& dict) {
  Dict items;
  for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const PickleValue& key = pickle[dict.items[i]];
    if (key.kind == Kind::kString) items[key.text] = &pickle[dict.items[i + 1]];
  }
  return items;
}

bool has_tensors(const Pickle& pickle, const PickleValue& value) {
  if (value.kind != Kind::kDict) return false;
  const Dict items = text_items(pickle, value);
  return std::any_of(items.begin(), items.end(),
                     [](const auto& item) { return item.second->kind == Kind::kTensor; });
}

std::string describe(const PickleValue& value) {
  switch (value.kind) {
    case Kind::kSkipped:
      return "an object of class " + value.text;
    case Kind::kList:
      return "a list";
    case Kind::kTuple:
      return "a tuple";
    default:
      return "no tensors";
  }
}

// The dict of weights and the name of the entry that holds it.
std::pair<const PickleValue*, std::string> find_weights(const Pickle& pickle,
                                                        const std::string& path) {
  const PickleValue& root = pickle.root();
  VPD_CHECK(root.kind == Kind::kDict, path, ": expected a dict of tensors, got ", describe(root),
            "; save model.state_dict() instead");
  const Dict items = text_items(pickle, root);
  for (const char* entry : {"state_dict", "model"}) {
    const auto found = items.find(entry);
    if (found != items.end() && has_tensors(pickle, *found->second)) return {found->second, entry};
  }
  if (has_tensors(pickle, root)) return {&root, ""};
  std::pair<const PickleValue*, std::string> only{nullptr, ""};
  std::string names;
  int count = 0;
  for (const auto& [name, value] : items) {
    names += (names.empty() ? "" : ", ") + name;
    if (!has_tensors(pickle, *value)) continue;
    only = {value, name};
    ++count;
  }
  VPD_CHECK(count == 1, path,
            ": expected a dict of tensors, or one under 'state_dict' or 'model'; got ", count,
            " dicts of tensors in the entries ", names.empty() ? "(none)" : names,
            "; save one of them alone");
  return only;
}

// "archive/" of "archive/data.pkl".
std::string find_folder(const ZipDirectory& zip, const std::string& path) {
  std::optional<std::string> folder;
  for (const auto& [name, entry] : zip.entries()) {
    if (!name.ends_with(kPickleName)) continue;
    const std::string before = name.substr(0, name.size() - kPickleName.size());
    if (before.empty() || before.find('/') == before.size() - 1) folder = before;
  }
  VPD_CHECK(folder, path, ": expected a PyTorch checkpoint, got a zip file without data.pkl");
  VPD_CHECK(
      !zip.contains(*folder + "constants.pkl"), path,
      ": expected a checkpoint of weights, got a TorchScript program; save its state_dict instead");
  return *folder;
}

void check_byte_order(const ZipDirectory& zip, const std::string& folder, const std::string& path) {
  if (!zip.contains(folder + "byteorder")) return;  // older files: always little
  const std::string_view order = zip.read(folder + "byteorder");
  VPD_CHECK(order == "little", path, ": expected little-endian tensors, got another byte order");
}

[[noreturn]] void fail_unknown(const MappedFile& file) {
  const std::string_view bytes = file.bytes();
  // The magic number that opens PyTorch's files before 1.6.
  constexpr std::string_view kLegacy("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
                                     14);
  if (bytes.starts_with(kLegacy)) {
    fail(file.path(),
         ": this is PyTorch's format from before version 1.6, which vpd does not read; convert "
         "it once with torch.save(torch.load(path, weights_only=True), new_path)");
  }
  if (bytes.starts_with("\x80") && bytes.size() > 1 && bytes[1] >= 2 && bytes[1] <= 5) {
    fail(file.path(),
         ": this is a plain pickle, which can run code when opened; vpd reads safetensors and "
         "PyTorch's zip format (torch.save) only");
  }
  if (bytes.starts_with("version https://git-lfs")) {
    fail(file.path(),
         ": this is a Git LFS pointer, not the weights: fetch the file with git lfs pull");
  }
  if (bytes.starts_with("<")) {
    fail(file.path(),
         ": this is a web page, not weights: the download went to a log-in or error page");
  }
  fail(file.path(), ": expected a safetensors file or a PyTorch checkpoint (zip), got neither");
}

}  // namespace

TorchFile read_torch(const std::shared_ptr<MappedFile>& file) {
  if (!file->bytes().starts_with("PK")) fail_unknown(*file);
  const std::string& path = file->path();
  const ZipDirectory zip(*file);
  const std::string folder = find_folder(zip, path);
  check_byte_order(zip, folder, path);
  const std::string_view bytes = zip.read(folder + std::string(kPickleName));
  VPD_CHECK(bytes.size() <= kMaxPickle, path, ": data.pkl must be at most ", kMaxPickle,
            " bytes, got ", bytes.size());

  const auto storage = [&](const std::string& key, at::ScalarType dtype, int64_t numel,
                           int64_t offset, const std::vector<int64_t>& sizes,
                           const std::vector<int64_t>& strides) {
    const auto range = zip.locate(folder + "data/" + key);
    const auto item = static_cast<int64_t>(c10::elementSize(dtype));
    VPD_CHECK(
        numel >= 0 && static_cast<uint64_t>(numel) <= range.size / static_cast<uint64_t>(item),
        path, ": storage '", key, "' must have ", numel, " elements of ", c10::toString(dtype),
        ", got ", range.size, " bytes; the file is damaged");
    return file->view(range.offset + static_cast<uint64_t>(offset * item), dtype, sizes, strides,
                      key);
  };
  const Pickle pickle(bytes, path, storage);

  TorchFile result;
  result.skipped.assign(pickle.skipped().begin(), pickle.skipped().end());
  if (pickle.root().kind == Kind::kTensor) {
    result.tensors.emplace_back("tensor", pickle.root().tensor);
    return result;
  }
  const auto [weights, entry] = find_weights(pickle, path);
  result.entry = entry;
  for (const auto& [name, value] : text_items(pickle, *weights)) {
    if (value->kind == Kind::kTensor) result.tensors.emplace_back(name, value->tensor);
  }
  return result;
}

}  // namespace vpd::io
