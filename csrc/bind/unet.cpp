#include "models/unet.h"

#include "bind/network.h"

namespace vpd::bind {

using models::MapFusion;
using models::Recompute;
using models::UNet;
using models::UNetConfig;
using models::UNetInputs;
using models::UNetOutput;
using models::UNetTaps;
using nn::AttentionControl;

void bind_unet(py::module_& module) {
  py::enum_<MapFusion>(module, "MapFusion")
      .value("mean", MapFusion::kMean)
      .value("daam", MapFusion::kDaam);

  py::class_<UNetTaps>(module, "UNetTaps")
      .def(py::init([](bool noise, bool features, std::vector<int64_t> attention,
                       std::string selector, bool map_grad, MapFusion fusion, bool per_head,
                       std::vector<std::string> layers, std::vector<int64_t> tokens,
                       std::optional<int64_t> rows, std::vector<std::string> block_inputs,
                       std::vector<std::string> block_outputs) {
             return UNetTaps{noise,
                             features,
                             std::move(attention),
                             std::move(selector),
                             map_grad,
                             fusion,
                             per_head,
                             std::move(layers),
                             std::move(tokens),
                             rows,
                             std::move(block_inputs),
                             std::move(block_outputs)};
           }),
           py::kw_only(), py::arg("noise"), py::arg("features"), py::arg("attention"),
           py::arg("selector"), py::arg("map_grad"), py::arg("fusion"), py::arg("per_head"),
           py::arg("layers"), py::arg("tokens"), py::arg("rows"), py::arg("block_inputs"),
           py::arg("block_outputs"));

  py::class_<AttentionControl, std::shared_ptr<AttentionControl>>(module, "AttentionControl")
      .def(py::init([](const std::optional<Tensor>& self_source,
                       std::optional<int64_t> self_positions, const std::optional<Tensor>& kept,
                       const std::optional<Tensor>& rows, const std::optional<Tensor>& sources,
                       const std::optional<Tensor>& transfer) {
             AttentionControl control{self_source, self_positions, std::nullopt};
             if (kept) control.cross = {*kept, rows.value(), sources.value(), transfer.value()};
             return std::make_shared<AttentionControl>(std::move(control));
           }),
           py::kw_only(), py::arg("self_source"), py::arg("self_positions"), py::arg("kept"),
           py::arg("rows"), py::arg("sources"), py::arg("transfer"));

  py::class_<UNetOutput>(module, "UNetOutput")
      .def_readonly("noise", &UNetOutput::noise)
      .def_readonly("features", &UNetOutput::features)
      .def_readonly("attention", &UNetOutput::attention)
      .def_readonly("blocks", &UNetOutput::blocks)
      .def_readonly("stem_rows", &UNetOutput::stem_rows);

  py::enum_<Recompute>(module, "Recompute")
      .value("none", Recompute::kNone)
      .value("feed_forward", Recompute::kFeedForward)
      .value("attention", Recompute::kAttention)
      .value("all", Recompute::kAll);

  py::class_<UNet, std::shared_ptr<UNet>> net(module, "UNet");
  net.def(py::init([](int64_t in_channels, int64_t out_channels, int64_t model_channels,
                      std::vector<int64_t> channel_mult, int64_t num_res_blocks,
                      std::vector<int64_t> attention_resolutions, int64_t num_heads,
                      int64_t transformer_depth, int64_t context_dim, int64_t norm_groups) {
            return std::make_shared<UNet>(UNetConfig{in_channels, out_channels, model_channels,
                                                     std::move(channel_mult), num_res_blocks,
                                                     std::move(attention_resolutions), num_heads,
                                                     transformer_depth, context_dim, norm_groups});
          }),
          py::kw_only(), py::arg("in_channels"), py::arg("out_channels"), py::arg("model_channels"),
          py::arg("channel_mult"), py::arg("num_res_blocks"), py::arg("attention_resolutions"),
          py::arg("num_heads"), py::arg("transformer_depth"), py::arg("context_dim"),
          py::arg("norm_groups"));
  with_table(net);
  net.def("attention_layers", [](const UNet& self) {
    std::vector<std::tuple<std::string, std::string, int64_t>> rows;
    for (const auto& layer : self.attention_layers())
      rows.emplace_back(layer.name, layer.place, layer.stride);
    return rows;
  });
  net.def("feature_channels", &UNet::feature_channels);
  net.def(
      "forward",
      [](const UNet& self, const std::vector<Tensor>& params, const Tensor& latents,
         const Tensor& timesteps, const Tensor& context, const std::optional<Tensor>& image_index,
         const std::optional<Tensor>& context_mask, const std::optional<Tensor>& time_bias,
         const std::shared_ptr<AttentionControl>& control, const UNetTaps& taps,
         Recompute recompute) {
        py::gil_scoped_release release;
        return self.forward(
            Params(self.table(), params),
            {latents, timesteps, context, image_index, context_mask, time_bias, control}, taps,
            recompute);
      },
      py::arg("params"), py::arg("latents"), py::arg("timesteps"), py::arg("context"),
      py::arg("image_index"), py::arg("context_mask"), py::arg("time_bias"), py::arg("control"),
      py::arg("taps"), py::arg("recompute"));
}

}  // namespace vpd::bind
