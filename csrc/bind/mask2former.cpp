#include "models/mask2former.h"

#include "bind/network.h"

namespace vpd::bind {
namespace {

using models::Mask2FormerConfig;
using models::Mask2FormerHead;
using Tensors = std::vector<Tensor>;
using Decoded = std::tuple<Tensors, Tensors, Tensors>;  // logits, masks, queries

}  // namespace

void bind_mask2former(py::module_& module) {
  py::class_<Mask2FormerHead> head(module, "Mask2FormerHead");
  head.def(py::init([](std::vector<int64_t> in_channels, std::optional<int64_t> num_classes,
                       int64_t conv_dim, int64_t mask_dim, int64_t hidden_dim, int64_t num_queries,
                       int64_t nheads, int64_t dim_feedforward, int64_t dec_layers,
                       int64_t transformer_nheads, int64_t transformer_dim_feedforward,
                       int64_t transformer_enc_layers, int64_t transformer_levels,
                       int64_t num_feature_levels, int64_t n_points, int64_t norm_groups,
                       bool pre_norm, bool enforce_input_project) {
             return std::make_unique<Mask2FormerHead>(
                 Mask2FormerConfig{.in_channels = std::move(in_channels),
                                   .num_classes = num_classes,
                                   .conv_dim = conv_dim,
                                   .mask_dim = mask_dim,
                                   .hidden_dim = hidden_dim,
                                   .num_queries = num_queries,
                                   .nheads = nheads,
                                   .dim_feedforward = dim_feedforward,
                                   .dec_layers = dec_layers,
                                   .transformer_nheads = transformer_nheads,
                                   .transformer_dim_feedforward = transformer_dim_feedforward,
                                   .transformer_enc_layers = transformer_enc_layers,
                                   .transformer_levels = transformer_levels,
                                   .num_feature_levels = num_feature_levels,
                                   .n_points = n_points,
                                   .norm_groups = norm_groups,
                                   .pre_norm = pre_norm,
                                   .enforce_input_project = enforce_input_project});
           }),
           py::kw_only(), py::arg("in_channels"), py::arg("num_classes"), py::arg("conv_dim"),
           py::arg("mask_dim"), py::arg("hidden_dim"), py::arg("num_queries"), py::arg("nheads"),
           py::arg("dim_feedforward"), py::arg("dec_layers"), py::arg("transformer_nheads"),
           py::arg("transformer_dim_feedforward"), py::arg("transformer_enc_layers"),
           py::arg("transformer_levels"), py::arg("num_feature_levels"), py::arg("n_points"),
           py::arg("norm_groups"), py::arg("pre_norm"), py::arg("enforce_input_project"));
  // Not with_table(): the start is the head's own.
  head.def("table", [](const Mask2FormerHead& self) { return specs(self.table()); });
  with_packed(head);
  head.def(
      "initialise",
      [](const Mask2FormerHead& self, const at::Device& device, at::ScalarType dtype,
         const std::optional<at::Generator>& generator) {
        py::gil_scoped_release release;
        return self.initialise(device, dtype, generator);
      },
      py::arg("device"), py::arg("dtype"), py::arg("generator") = py::none());
  head.def(
      "pixels",
      [](const Mask2FormerHead& self, const Tensors& params, const Tensors& features) {
        py::gil_scoped_release release;
        models::PixelFeatures pixels = self.pixels(Params(self.table(), params), features);
        return std::make_pair(std::move(pixels.mask_features), std::move(pixels.levels));
      },
      py::arg("params"), py::arg("features"), "(mask_features, levels)");
  head.def(
      "decode",
      [](const Mask2FormerHead& self, const Tensors& params, const Tensor& mask_features,
         const Tensors& levels, bool last_only) {
        py::gil_scoped_release release;
        models::MaskedDecoderOutput out =
            self.decode(Params(self.table(), params), {mask_features, levels}, last_only);
        return Decoded(std::move(out.logits), std::move(out.masks), std::move(out.queries));
      },
      py::arg("params"), py::arg("mask_features"), py::arg("levels"), py::arg("last_only"),
      "(logits, masks, queries)");
}

}  // namespace vpd::bind
