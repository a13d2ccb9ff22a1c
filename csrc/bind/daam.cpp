#include "models/daam.h"

#include "bind/network.h"

namespace vpd::bind {

void bind_daam(py::module_& module) {
  const auto released = py::call_guard<py::gil_scoped_release>();
  module.def("daam", &models::daam, py::arg("layers"), py::arg("size"), released,
             "[B, heads, N, h, w] of each layer -> [B, N, *size]");
  module.def("daam_normalized", &models::daam_normalized, py::arg("maps"), py::arg("tokens"),
             released);
  module.def("daam_expanded", &models::daam_expanded, py::arg("maps"), py::arg("size"),
             py::arg("absolute"), released);
}

}  // namespace vpd::bind
