// Heads of semantic segmentation and depth.
#include "bind/head.h"
#include "models/depth_head.h"
#include "models/fpn.h"
#include "models/uper_head.h"

namespace vpd::bind {
namespace {

using models::DepthHead;
using models::DepthHeadConfig;
using models::FCNHead;
using models::FCNHeadConfig;
using models::FPN;
using models::FPNConfig;
using models::SemanticFPNHead;
using models::SemanticFPNHeadConfig;
using models::UperNetHead;
using models::UperNetHeadConfig;
using Maps = std::vector<Tensor>;

// Adds table(), initialise() and forward() of a head that classifies pixels.
template <typename Head>
void with_classifier(py::class_<Head>& head) {
  with_table(head);
  head.def(
      "forward",
      [](const Head& self, const Maps& params, const Maps& features, bool training,
         const GroupTuple& group, const std::optional<at::Generator>& generator) {
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), features,
                            mode(training, group, generator));
      },
      py::arg("params"), py::arg("features"), py::arg("training"), py::arg("group") = py::none(),
      py::arg("generator") = py::none());
}

void bind_fpn(py::module_& module) {
  py::class_<FPN> neck(module, "FPN");
  neck.def(py::init([](std::vector<int64_t> in_channels, int64_t out_channels) {
             return std::make_unique<FPN>(FPNConfig{std::move(in_channels), out_channels});
           }),
           py::kw_only(), py::arg("in_channels"), py::arg("out_channels"));
  with_table(neck);
  neck.def(
      "forward",
      [](const FPN& self, const Maps& params, const Maps& features) {
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), features);
      },
      py::arg("params"), py::arg("features"));

  py::class_<SemanticFPNHead> head(module, "SemanticFPNHead");
  head.def(py::init([](std::vector<int64_t> in_channels, int64_t num_classes, int64_t channels,
                       double dropout) {
             return std::make_unique<SemanticFPNHead>(
                 SemanticFPNHeadConfig{std::move(in_channels), num_classes, channels, dropout});
           }),
           py::kw_only(), py::arg("in_channels"), py::arg("num_classes"), py::arg("channels"),
           py::arg("dropout"));
  with_classifier(head);
}

void bind_uper_head(py::module_& module) {
  py::class_<UperNetHead> head(module, "UperNetHead");
  head.def(py::init([](std::vector<int64_t> in_channels, int64_t num_classes, int64_t channels,
                       std::vector<int64_t> pool_scales, double dropout) {
             return std::make_unique<UperNetHead>(UperNetHeadConfig{
                 std::move(in_channels), num_classes, channels, std::move(pool_scales), dropout});
           }),
           py::kw_only(), py::arg("in_channels"), py::arg("num_classes"), py::arg("channels"),
           py::arg("pool_scales"), py::arg("dropout"));
  with_classifier(head);
  head.def(
      "pool",
      [](const UperNetHead& self, const Maps& params, const Tensor& coarsest, bool training,
         const GroupTuple& group) {
        py::gil_scoped_release release;
        return self.pool(Params(self.table(), params), coarsest, mode(training, group));
      },
      py::arg("params"), py::arg("coarsest"), py::arg("training"), py::arg("group") = py::none());

  py::class_<FCNHead> fcn(module, "FCNHead");
  fcn.def(py::init([](int64_t in_channels, int64_t num_classes, int64_t channels, int64_t num_convs,
                      int64_t in_index, double dropout) {
            return std::make_unique<FCNHead>(
                FCNHeadConfig{in_channels, num_classes, channels, num_convs, in_index, dropout});
          }),
          py::kw_only(), py::arg("in_channels"), py::arg("num_classes"), py::arg("channels"),
          py::arg("num_convs"), py::arg("in_index"), py::arg("dropout"));
  with_classifier(fcn);
}

void bind_depth_head(py::module_& module) {
  py::class_<DepthHead> head(module, "DepthHead");
  head.def(py::init([](std::vector<int64_t> dims, int64_t embed_dim,
                       std::vector<int64_t> num_filters, double max_depth, int64_t norm_groups) {
             return std::make_unique<DepthHead>(DepthHeadConfig{
                 std::move(dims), embed_dim, std::move(num_filters), max_depth, norm_groups});
           }),
           py::kw_only(), py::arg("dims"), py::arg("embed_dim"), py::arg("num_filters"),
           py::arg("max_depth"), py::arg("norm_groups"));
  with_table(head);
  head.def(
      "encode",
      [](const DepthHead& self, const Maps& params, const Maps& features) {
        py::gil_scoped_release release;
        return self.encode(Params(self.table(), params), features);
      },
      py::arg("params"), py::arg("features"));
  head.def(
      "decode",
      [](const DepthHead& self, const Maps& params, const Tensor& encoded,
         const DepthHead::Crop& crop, bool training, const GroupTuple& group) {
        py::gil_scoped_release release;
        return self.decode(Params(self.table(), params), encoded, crop, mode(training, group));
      },
      py::arg("params"), py::arg("encoded"), py::arg("crop"), py::arg("training"),
      py::arg("group") = py::none());
  head.def(
      "forward",
      [](const DepthHead& self, const Maps& params, const Maps& features,
         const DepthHead::Crop& crop, bool training, const GroupTuple& group) {
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), features, crop, mode(training, group));
      },
      py::arg("params"), py::arg("features"), py::arg("crop"), py::arg("training"),
      py::arg("group") = py::none());
}

}  // namespace

void bind_heads(py::module_& module) {
  bind_fpn(module);
  bind_uper_head(module);
  bind_depth_head(module);
}

}  // namespace vpd::bind
