#include "models/vit.h"

#include "bind/network.h"

namespace vpd::bind {

using models::ViT;
using models::ViTConfig;

void bind_vit(py::module_& module) {
  py::class_<ViT> net(module, "ViT");
  net.def(py::init([](int64_t hidden_size, int64_t intermediate_size, int64_t num_hidden_layers,
                      int64_t num_attention_heads, int64_t image_size, int64_t patch_size,
                      int64_t num_register_tokens, bool layer_scale, double layer_norm_eps) {
            return std::make_unique<ViT>(ViTConfig{
                hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, image_size,
                patch_size, num_register_tokens, layer_scale, layer_norm_eps});
          }),
          py::kw_only(), py::arg("hidden_size"), py::arg("intermediate_size"),
          py::arg("num_hidden_layers"), py::arg("num_attention_heads"), py::arg("image_size"),
          py::arg("patch_size"), py::arg("num_register_tokens"), py::arg("layer_scale"),
          py::arg("layer_norm_eps"));
  with_table(net);
  net.def(
      "forward",
      [](const ViT& self, const std::vector<Tensor>& params, const Tensor& pixels,
         const std::vector<int64_t>& blocks) {
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), pixels, blocks);
      },
      py::arg("params"), py::arg("pixels"), py::arg("blocks"));
}

}  // namespace vpd::bind
