// What leads from a frozen diffusion model's features to ODISE's head.
#include "bind/network.h"
#include "models/odise_backbone.h"
#include "nn/windows.h"

namespace vpd::bind {

using models::OdiseBackbone;
using models::OdiseBackboneConfig;

void bind_odise(py::module_& module) {
  py::class_<OdiseBackbone, std::shared_ptr<OdiseBackbone>> net(module, "OdiseBackbone");
  net.def(py::init([](std::vector<int64_t> in_channels, std::vector<int64_t> in_strides,
                      int64_t projection_dim, int64_t num_res_blocks, int64_t min_stride,
                      int64_t max_stride, int64_t norm_groups) {
            return std::make_shared<OdiseBackbone>(
                OdiseBackboneConfig{std::move(in_channels), std::move(in_strides), projection_dim,
                                    num_res_blocks, min_stride, max_stride, norm_groups});
          }),
          py::kw_only(), py::arg("in_channels"), py::arg("in_strides"), py::arg("projection_dim"),
          py::arg("num_res_blocks"), py::arg("min_stride"), py::arg("max_stride"),
          py::arg("norm_groups"));
  with_table(net);
  net.def("strides", &OdiseBackbone::strides);
  net.def(
      "forward",
      [](const OdiseBackbone& self, const std::vector<Tensor>& params,
         const std::vector<Tensor>& features, int64_t height, int64_t width, bool recompute) {
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), features, height, width, recompute);
      },
      py::arg("params"), py::arg("features"), py::arg("height"), py::arg("width"),
      py::arg("recompute"));
  module.def("join_windows", &nn::join_windows, py::arg("windows"), py::arg("height"),
             py::arg("width"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace vpd::bind
