#include "metrics/panoptic.h"

#include "bind/network.h"
#include "ops/id_map.h"
#include "ops/mask_inference.h"

namespace vpd::bind {

using metrics::PanopticMetrics;
using metrics::PanopticQuality;
using metrics::PanopticScores;
using metrics::SegmentMap;

namespace {

using Size = std::array<int64_t, 2>;
// Id map, and of each segment id, class and whether it is a crowd.
using SegmentTuple =
    std::tuple<Tensor, std::vector<int64_t>, std::vector<int64_t>, std::vector<bool>>;

SegmentMap segment_map(const SegmentTuple& parts) {
  const auto& [ids, segments, classes, crowd] = parts;
  return {ids, segments, classes, crowd};
}

void bind_panoptic_metrics(py::module_& module) {
  py::class_<PanopticQuality>(module, "PanopticQuality")
      .def_readonly("pq", &PanopticQuality::pq)
      .def_readonly("sq", &PanopticQuality::sq)
      .def_readonly("rq", &PanopticQuality::rq)
      .def_readonly("classes", &PanopticQuality::classes);
  py::class_<PanopticScores>(module, "PanopticScores")
      .def_readonly("all", &PanopticScores::all)
      .def_readonly("things", &PanopticScores::things)
      .def_readonly("stuff", &PanopticScores::stuff)
      .def_readonly("by_class", &PanopticScores::by_class);
  py::class_<PanopticMetrics>(module, "PanopticMetrics")
      .def(py::init<std::vector<bool>>(), py::arg("things"))
      .def(
          "update",
          [](PanopticMetrics& m, const SegmentTuple& prediction, const SegmentTuple& target) {
            m.update(segment_map(prediction), segment_map(target));
          },
          py::arg("prediction"), py::arg("target"), py::call_guard<py::gil_scoped_release>())
      .def("merge", &PanopticMetrics::merge, py::arg("other"))
      .def("compute", &PanopticMetrics::compute)
      .def_readonly("n", &PanopticMetrics::n)
      .def_readonly("matches", &PanopticMetrics::matches)
      .def_readonly("false_alarms", &PanopticMetrics::false_alarms)
      .def_readonly("misses", &PanopticMetrics::misses)
      .def_readonly("iou", &PanopticMetrics::iou)
      .def(py::pickle(
          [](const PanopticMetrics& m) {
            return std::tuple(m.things, m.n, m.matches, m.false_alarms, m.misses, m.iou);
          },
          [](const std::tuple<std::vector<bool>, int64_t, std::vector<int64_t>,
                              std::vector<int64_t>, std::vector<int64_t>, std::vector<double>>&
                 state) {
            PanopticMetrics m(std::get<0>(state));
            m.n = std::get<1>(state);
            m.matches = std::get<2>(state);
            m.false_alarms = std::get<3>(state);
            m.misses = std::get<4>(state);
            m.iou = std::get<5>(state);
            return m;
          }));
}

}  // namespace

void bind_panoptic(py::module_& module) {
  bind_panoptic_metrics(module);
  module.def("id_rows", &ops::id_rows, py::arg("map"), py::arg("ids"),
             py::call_guard<py::gil_scoped_release>());
  module.def(
      "panoptic_inference",
      [](const Tensor& logits, const Tensor& masks, const Size& padded, const Size& used,
         const Size& size, const std::vector<bool>& things, double min_score, double min_overlap) {
        const ops::PanopticSegments found = ops::panoptic_inference(
            logits, masks, {padded, used, size}, things, min_score, min_overlap);
        std::vector<std::tuple<int64_t, int64_t, double>> segments;
        for (const ops::PanopticSegment& own : found.segments)
          segments.emplace_back(own.id, own.category, own.score);
        return std::pair(found.ids, segments);
      },
      py::arg("logits"), py::arg("masks"), py::arg("padded"), py::arg("used"), py::arg("size"),
      py::arg("things"), py::arg("min_score"), py::arg("min_overlap"),
      py::call_guard<py::gil_scoped_release>());
  module.def(
      "semantic_scores",
      [](const Tensor& logits, const Tensor& masks, const Size& padded, const Size& used,
         const Size& size, int64_t first, int64_t last) {
        return ops::semantic_scores(logits, masks, {padded, used, size}, first, last);
      },
      py::arg("logits"), py::arg("masks"), py::arg("padded"), py::arg("used"), py::arg("size"),
      py::arg("first"), py::arg("last"), py::call_guard<py::gil_scoped_release>());
  module.def(
      "semantic_inference",
      [](const Tensor& logits, const Tensor& masks, const Size& padded, const Size& used,
         const Size& size) { return ops::semantic_inference(logits, masks, {padded, used, size}); },
      py::arg("logits"), py::arg("masks"), py::arg("padded"), py::arg("used"), py::arg("size"),
      py::call_guard<py::gil_scoped_release>());
  module.def(
      "instance_inference",
      [](const Tensor& logits, const Tensor& masks, const Size& padded, const Size& used,
         const Size& size, const std::vector<bool>& things, int64_t top) {
        const ops::InstanceMasks found =
            ops::instance_inference(logits, masks, {padded, used, size}, things, top);
        std::vector<std::tuple<int64_t, int64_t, double>> instances;
        for (const ops::InstanceMask& own : found.instances)
          instances.emplace_back(own.category, own.mask, own.score);
        return std::pair(instances, found.runs);
      },
      py::arg("logits"), py::arg("masks"), py::arg("padded"), py::arg("used"), py::arg("size"),
      py::arg("things"), py::arg("top"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace vpd::bind
