#pragma once
// What every bound network offers: its table, its initial tensors, its forward without the GIL.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "core/packing.h"
#include "core/params.h"

namespace vpd::bind {

namespace py = pybind11;

// (name, shape, is_buffer) of every slot, in table order.
using SpecTuple = std::tuple<std::string, std::vector<int64_t>, bool>;

inline std::vector<SpecTuple> specs(const ParamTable& table) {
  std::vector<SpecTuple> rows;
  for (const ParamSpec& spec : table.specs())
    rows.emplace_back(spec.name, spec.shape, spec.is_buffer);
  return rows;
}

template <typename Net, typename... Extra>
void with_packed(py::class_<Net, Extra...>& cls) {
  cls.def(
      "packed",
      [](const Net& net, const std::vector<Tensor>& tensors, bool gradients) {
        py::gil_scoped_release release;
        return packed(net.table(), tensors, gradients);
      },
      py::arg("tensors"), py::arg("gradients"));
}

// Adds table(), initialise() and packed() to a bound class whose C++ class has table().
template <typename Net, typename... Extra>
py::class_<Net, Extra...>& with_table(py::class_<Net, Extra...>& cls) {
  cls.def("table", [](const Net& net) { return specs(net.table()); });
  cls.def(
      "initialise",
      [](const Net& net, const at::Device& device, at::ScalarType dtype,
         const std::optional<at::Generator>& generator) {
        py::gil_scoped_release release;
        return net.table().initialise(device, dtype, generator);
      },
      py::arg("device"), py::arg("dtype"), py::arg("generator") = py::none());
  with_packed(cls);
  return cls;
}

}  // namespace vpd::bind
