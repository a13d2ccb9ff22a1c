#include "bind/network.h"
#include "metrics/refer.h"

namespace vpd::bind {

using metrics::PickScore;
using metrics::ReferMetrics;

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
}

}  // namespace vpd::bind
