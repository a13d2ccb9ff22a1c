#include "core/params.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace vpd {

Init Init::fan_in(int64_t fan_in) { return uniform(1.0 / std::sqrt(static_cast<double>(fan_in))); }

Slot ParamTable::add(ParamSpec spec) {
  specs_.push_back(std::move(spec));
  return Slot(specs_.size() - 1);
}

SlotRange ParamTable::range(std::string_view scope) const {
  const std::string prefix = std::string(scope) + ".";
  const auto below = [&](const ParamSpec& spec) { return spec.name.rfind(prefix, 0) == 0; };
  const auto first = std::find_if(specs_.begin(), specs_.end(), below);
  const auto last = std::find_if_not(first, specs_.end(), below);
  return {static_cast<size_t>(first - specs_.begin()), static_cast<size_t>(last - specs_.begin())};
}

std::vector<Tensor> ParamTable::initialise(const at::Device& device, at::ScalarType dtype,
                                           const std::optional<at::Generator>& generator) const {
  std::vector<Tensor> tensors;
  tensors.reserve(specs_.size());
  for (const ParamSpec& spec : specs_) {
    const auto type = at::isFloatingType(spec.dtype) ? dtype : spec.dtype;
    Tensor tensor = at::empty(spec.shape, at::TensorOptions().dtype(type).device(device));
    if (!device.is_meta()) {
      switch (spec.init.kind) {
        case Init::Kind::kConstant:
          tensor.fill_(spec.init.value);
          break;
        case Init::Kind::kUniform:
          tensor.uniform_(-spec.init.value, spec.init.value, generator);
          break;
        case Init::Kind::kNormal:
          tensor.normal_(0.0, spec.init.value, generator);
          break;
      }
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::string Scope::join(std::string_view name) const {
  return prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name);
}

Scope Scope::operator/(std::string_view child) const { return {table_, join(child)}; }

Scope Scope::operator/(int64_t child) const { return {table_, join(std::to_string(child))}; }

Slot Scope::declare(std::string_view name, std::vector<int64_t> shape, Init init) const {
  return table_->add({.name = join(name), .shape = std::move(shape), .init = init});
}

Slot Scope::weight(std::vector<int64_t> shape, Init init, WeightUse use) const {
  return table_->add({.name = join("weight"), .shape = std::move(shape), .init = init, .use = use});
}

Slot Scope::buffer(std::string_view name, std::vector<int64_t> shape, Init init,
                   at::ScalarType dtype) const {
  return table_->add({.name = join(name),
                      .shape = std::move(shape),
                      .init = init,
                      .is_buffer = true,
                      .dtype = dtype});
}

Params::Params(const ParamTable& table, at::TensorList tensors)
    : tensors_(tensors), count_(table.size()) {
  VPD_CHECK(tensors.size() == count_ || tensors.size() == 2 * count_, "params: expected ", count_,
            " tensors, got ", tensors.size());
}

}  // namespace vpd
