#include "io/state.h"

#include "core/check.h"
#include "io/weights.h"

namespace vpd::io {

void State::add(const std::string& path) {
  for (auto& [name, tensor] : read_weights(path).tensors) {
    entries_.insert_or_assign(name, Entry{path, std::move(tensor)});
  }
  paths_ += (paths_.empty() ? "" : ", ") + path;
}

std::vector<Tensor> State::take(const ParamTable& table, const std::string& prefix) {
  std::vector<Tensor> tensors;
  tensors.reserve(table.size());
  for (const ParamSpec& spec : table.specs()) {
    const auto found = entries_.find(prefix + spec.name);
    VPD_CHECK(found != entries_.end(), paths_, ": expected a tensor '", prefix, spec.name,
              "', got none");
    Entry& entry = found->second;
    VPD_CHECK(entry.tensor.sizes() == at::IntArrayRef(spec.shape), entry.path, ": '", found->first,
              "' must be ", at::IntArrayRef(spec.shape), ", got ", entry.tensor.sizes());
    Tensor tensor = entry.tensor.to(spec.dtype);
    if (tensor.dim() == 4) tensor = tensor.contiguous(at::MemoryFormat::ChannelsLast);
    tensors.push_back(std::move(tensor));
    entry.taken = true;
  }
  return tensors;
}

std::vector<std::string> State::rest(const std::string& path) const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) {
    if (entry.path == path && !entry.taken) names.push_back(name);
  }
  return names;
}

}  // namespace vpd::io
