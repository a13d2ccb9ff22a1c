#pragma once
// Weights by name, for networks to take theirs from.
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/params.h"

namespace vpd::io {

class State {
 public:
  State() = default;
  explicit State(const std::string& path) { add(path); }

  // The tensors of a file (io/weights.h), views of it; they replace those of the same name.
  void add(const std::string& path);

  // The tensors of a network, in table order and in the dtypes of the table, kernels in the memory
  // format that convolutions work in. prefix: what stands before the table's names in the file,
  // "model.diffusion_model." for Stable Diffusion's U-Net. Throws std::invalid_argument for a
  // tensor that is missing or of another shape.
  std::vector<Tensor> take(const ParamTable& table, const std::string& prefix);

  // Names of a file's tensors that no network took.
  std::vector<std::string> rest(const std::string& path) const;

 private:
  struct Entry {
    std::string path;
    Tensor tensor;
    bool taken = false;
  };
  std::map<std::string, Entry> entries_;
  std::string paths_;  // for errors
};

}  // namespace vpd::io
