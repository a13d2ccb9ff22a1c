#include "bind/network.h"
#include "metrics/depth.h"
#include "metrics/refer.h"
#include "metrics/semantic.h"
#include "metrics/tagging.h"

namespace vpd::bind {

using metrics::DepthMetrics;
using metrics::PickScore;
using metrics::PrecisionRecall;
using metrics::ReferMetrics;
using metrics::SemanticMetrics;
using metrics::SemanticScores;
using metrics::TagMetrics;
using metrics::TagScores;

void bind_metrics(py::module_& module) {
  py::class_<ReferMetrics>(module, "ReferMetrics")
      .def(py::init<>())
      .def("update", &ReferMetrics::update, py::arg("prediction"), py::arg("target"),
           py::call_guard<py::gil_scoped_release>())
      .def("merge", &ReferMetrics::merge, py::arg("other"))
      .def_readonly("n", &ReferMetrics::n)
      .def("overall_iou", &ReferMetrics::overall_iou)
      .def("mean_iou", &ReferMetrics::mean_iou)
      .def("precision", &ReferMetrics::precision, py::arg("threshold"))
      .def_static("thresholds", [] { return ReferMetrics::kThresholds; })
      .def(py::pickle(
          [](const ReferMetrics& m) {
            return std::tuple(m.n, m.intersection, m.union_, m.iou_sum, m.hits);
          },
          [](const std::tuple<int64_t, int64_t, int64_t, double, std::array<int64_t, 5>>& state) {
            const auto& [n, intersection, union_, iou_sum, hits] = state;
            return ReferMetrics{n, intersection, union_, iou_sum, hits};
          }));

  py::class_<PickScore>(module, "PickScore")
      .def(py::init<>())
      .def("update", &PickScore::update, py::arg("logits"), py::arg("instances"), py::arg("target"),
           py::arg("min_pixels"), py::call_guard<py::gil_scoped_release>())
      .def("merge", &PickScore::merge, py::arg("other"))
      .def_readonly("n", &PickScore::n)
      .def("pick", &PickScore::pick)
      .def(py::pickle([](const PickScore& m) { return std::tuple(m.n, m.picked); },
                      [](const std::tuple<int64_t, int64_t>& state) {
                        return PickScore{std::get<0>(state), std::get<1>(state)};
                      }));

  py::class_<SemanticScores>(module, "SemanticScores")
      .def_readonly("pixel_accuracy", &SemanticScores::pixel_accuracy)
      .def_readonly("mean_accuracy", &SemanticScores::mean_accuracy)
      .def_readonly("mean_iou", &SemanticScores::mean_iou)
      .def_readonly("mean_dice", &SemanticScores::mean_dice)
      .def_readonly("weighted_iou", &SemanticScores::weighted_iou)
      .def_readonly("ious", &SemanticScores::ious);
  py::class_<SemanticMetrics>(module, "SemanticMetrics")
      .def(py::init<int64_t, int64_t>(), py::arg("classes"), py::arg("ignore_index"))
      .def("update", &SemanticMetrics::update, py::arg("prediction"), py::arg("target"),
           py::call_guard<py::gil_scoped_release>())
      .def("merge", &SemanticMetrics::merge, py::arg("other"))
      .def("compute", &SemanticMetrics::compute, py::arg("labelled_only"))
      .def_readonly("n", &SemanticMetrics::n)
      .def_readonly("confusion", &SemanticMetrics::confusion)
      .def(py::pickle(
          [](const SemanticMetrics& m) {
            return std::tuple(m.classes, m.ignore_index, m.n, m.confusion);
          },
          [](const std::tuple<int64_t, int64_t, int64_t, Tensor>& state) {
            SemanticMetrics m(std::get<0>(state), std::get<1>(state));
            m.n = std::get<2>(state);
            m.confusion = std::get<3>(state);
            return m;
          }));

  py::class_<TagScores>(module, "TagScores")
      .def_readonly("mean_ap", &TagScores::mean_ap)
      .def_readonly("class_precision", &TagScores::class_precision)
      .def_readonly("class_recall", &TagScores::class_recall)
      .def_readonly("class_f1", &TagScores::class_f1)
      .def_readonly("overall_precision", &TagScores::overall_precision)
      .def_readonly("overall_recall", &TagScores::overall_recall)
      .def_readonly("overall_f1", &TagScores::overall_f1)
      .def_readonly("average_precisions", &TagScores::average_precisions);
  py::class_<PrecisionRecall>(module, "PrecisionRecall")
      .def_readonly("precision", &PrecisionRecall::precision)
      .def_readonly("recall", &PrecisionRecall::recall)
      .def_readonly("thresholds", &PrecisionRecall::thresholds);
  py::class_<TagMetrics>(module, "TagMetrics")
      .def(py::init<int64_t>(), py::arg("classes"))
      .def("update", &TagMetrics::update, py::arg("scores"), py::arg("target"),
           py::call_guard<py::gil_scoped_release>())
      .def("merge", &TagMetrics::merge, py::arg("other"))
      .def("compute", &TagMetrics::compute, py::arg("threshold"),
           py::call_guard<py::gil_scoped_release>())
      .def("recall_at", &TagMetrics::recall_at, py::arg("k"),
           py::call_guard<py::gil_scoped_release>())
      .def("curve", &TagMetrics::curve, py::arg("index"), py::call_guard<py::gil_scoped_release>())
      .def("all_scores", &TagMetrics::all_scores)
      .def("all_targets", &TagMetrics::all_targets)
      .def_readonly("n", &TagMetrics::n)
      .def(py::pickle(
          [](const TagMetrics& m) {
            return std::tuple(m.classes, m.all_scores(), m.all_targets());
          },
          [](const std::tuple<int64_t, Tensor, Tensor>& state) {
            const auto& [classes, scores, targets] = state;
            TagMetrics m(classes);
            m.update(scores, targets);
            return m;
          }));

  py::class_<DepthMetrics>(module, "DepthMetrics")
      .def(py::init<double, double, std::string>(), py::arg("min_depth"), py::arg("max_depth"),
           py::arg("crop"))
      .def("update", &DepthMetrics::update, py::arg("prediction"), py::arg("target"),
           py::call_guard<py::gil_scoped_release>())
      .def("merge", &DepthMetrics::merge, py::arg("other"))
      .def_readonly("n", &DepthMetrics::n)
      .def_readonly("skipped", &DepthMetrics::skipped)
      .def("mean", &DepthMetrics::mean, py::arg("which"))
      .def_static("names", [] { return DepthMetrics::kNames; })
      .def(py::pickle(
          [](const DepthMetrics& m) {
            return std::tuple(m.min_depth, m.max_depth, m.crop, m.n, m.skipped, m.sums);
          },
          [](const std::tuple<double, double, std::string, int64_t, int64_t,
                              decltype(DepthMetrics::sums)>& state) {
            const auto& [min_depth, max_depth, crop, n, skipped, sums] = state;
            DepthMetrics m(min_depth, max_depth, crop);
            m.n = n;
            m.skipped = skipped;
            m.sums = sums;
            return m;
          }));
}

}  // namespace vpd::bind
