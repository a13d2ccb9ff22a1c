#include "models/clip_text.h"

#include "bind/network.h"

namespace vpd::bind {

using models::CLIPTextConfig;
using models::CLIPTextEncoder;
using models::CLIPTextOutput;

void bind_clip_text(py::module_& module) {
  py::class_<CLIPTextOutput>(module, "CLIPTextOutput")
      .def_readonly("hidden", &CLIPTextOutput::hidden)
      .def_readonly("penultimate", &CLIPTextOutput::penultimate)
      .def_readonly("pooled", &CLIPTextOutput::pooled)
      .def_readonly("projected", &CLIPTextOutput::projected);

  py::class_<CLIPTextEncoder> net(module, "CLIPTextEncoder");
  net.def(
      py::init([](int64_t vocab_size, int64_t hidden_size, int64_t intermediate_size,
                  int64_t num_hidden_layers, int64_t num_attention_heads,
                  int64_t max_position_embeddings, std::string hidden_act, double layer_norm_eps,
                  int64_t eos_token_id, int64_t projection_dim, std::vector<int64_t> vocab_subset) {
        return std::make_unique<CLIPTextEncoder>(
            CLIPTextConfig{vocab_size, hidden_size, intermediate_size, num_hidden_layers,
                           num_attention_heads, max_position_embeddings, std::move(hidden_act),
                           layer_norm_eps, eos_token_id, projection_dim, std::move(vocab_subset)});
      }),
      py::kw_only(), py::arg("vocab_size"), py::arg("hidden_size"), py::arg("intermediate_size"),
      py::arg("num_hidden_layers"), py::arg("num_attention_heads"),
      py::arg("max_position_embeddings"), py::arg("hidden_act"), py::arg("layer_norm_eps"),
      py::arg("eos_token_id"), py::arg("projection_dim"), py::arg("vocab_subset"));
  with_table(net);
  net.def(
      "forward",
      [](const CLIPTextEncoder& self, const std::vector<Tensor>& params, const Tensor& ids,
         const std::optional<Tensor>& mask) {
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), ids, mask);
      },
      py::arg("params"), py::arg("ids"), py::arg("mask"));
}

}  // namespace vpd::bind
