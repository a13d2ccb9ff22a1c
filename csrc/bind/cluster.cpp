#include "bind/network.h"
#include "ops/kmeans.h"

namespace vpd::bind {

void bind_cluster(py::module_& module) {
  py::class_<ops::KMeans>(module, "KMeans")
      .def_readonly("labels", &ops::KMeans::labels)
      .def_readonly("centroids", &ops::KMeans::centroids)
      .def_readonly("inertia", &ops::KMeans::inertia)
      .def_readonly("iterations", &ops::KMeans::iterations);
  module.def("kmeans",
             py::overload_cast<const Tensor&, int64_t, uint64_t, int64_t, int64_t>(&ops::kmeans),
             py::arg("points"), py::arg("clusters"), py::arg("seed"), py::arg("restarts"),
             py::arg("iterations"), py::call_guard<py::gil_scoped_release>());
  module.def("kmeans_from", py::overload_cast<const Tensor&, const Tensor&, int64_t>(&ops::kmeans),
             py::arg("points"), py::arg("centroids"), py::arg("iterations"),
             py::call_guard<py::gil_scoped_release>());
  module.def("kmeans_seeds", &ops::kmeans_seeds, py::arg("points"), py::arg("clusters"),
             py::arg("seed"), py::arg("restart"), py::call_guard<py::gil_scoped_release>());
  module.def("principal_components", &ops::principal_components, py::arg("points"), py::arg("dims"),
             py::call_guard<py::gil_scoped_release>());
}

}  // namespace vpd::bind
