#include "models/clip_image.h"

#include "bind/network.h"

namespace vpd::bind {

using models::CLIPImageConfig;
using models::CLIPImageEncoder;
using models::CLIPImageOutput;

void bind_clip_image(py::module_& module) {
  py::class_<CLIPImageOutput>(module, "CLIPImageOutput")
      .def_readonly("hidden", &CLIPImageOutput::hidden)
      .def_readonly("last", &CLIPImageOutput::last)
      .def_readonly("penultimate", &CLIPImageOutput::penultimate)
      .def_readonly("pooled", &CLIPImageOutput::pooled)
      .def_readonly("projected", &CLIPImageOutput::projected);

  py::class_<CLIPImageEncoder> net(module, "CLIPImageEncoder");
  net.def(py::init([](int64_t hidden_size, int64_t intermediate_size, int64_t num_hidden_layers,
                      int64_t num_attention_heads, int64_t image_size, int64_t patch_size,
                      int64_t num_channels, int64_t projection_dim, std::string hidden_act,
                      double layer_norm_eps) {
            return std::make_unique<CLIPImageEncoder>(CLIPImageConfig{
                hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, image_size,
                patch_size, num_channels, projection_dim, std::move(hidden_act), layer_norm_eps});
          }),
          py::kw_only(), py::arg("hidden_size"), py::arg("intermediate_size"),
          py::arg("num_hidden_layers"), py::arg("num_attention_heads"), py::arg("image_size"),
          py::arg("patch_size"), py::arg("num_channels"), py::arg("projection_dim"),
          py::arg("hidden_act"), py::arg("layer_norm_eps"));
  with_table(net);
  net.def(
      "forward",
      [](const CLIPImageEncoder& self, const std::vector<Tensor>& params, const Tensor& pixels) {
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), pixels);
      },
      py::arg("params"), py::arg("pixels"));
}

}  // namespace vpd::bind
