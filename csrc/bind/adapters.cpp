#include "bind/network.h"
#include "models/implicit_captioner.h"
#include "models/text_adapter.h"

namespace vpd::bind {

using models::ImplicitCaptioner;
using models::ImplicitCaptionerConfig;
using models::TextAdapter;

namespace {

void bind_implicit_captioner(py::module_& module) {
  py::class_<ImplicitCaptioner> net(module, "ImplicitCaptioner");
  net.def(py::init([](int64_t dim, int64_t image_dim, int64_t tokens,
                      std::optional<int64_t> time_dim, bool gated, int64_t time_steps) {
            return std::make_unique<ImplicitCaptioner>(
                ImplicitCaptionerConfig{dim, image_dim, tokens, time_dim, gated, time_steps});
          }),
          py::kw_only(), py::arg("dim"), py::arg("image_dim"), py::arg("tokens"),
          py::arg("time_dim"), py::arg("gated"), py::arg("time_steps"));
  with_table(net);
  net.def(
      "forward",
      [](const ImplicitCaptioner& self, const std::vector<Tensor>& params, const Tensor& image,
         const std::optional<Tensor>& empty) {
        py::gil_scoped_release release;
        models::ImplicitCaption out = self.forward(Params(self.table(), params), image, empty);
        return std::make_pair(std::move(out.context), std::move(out.time_bias));
      },
      py::arg("params"), py::arg("image"), py::arg("empty"), "(context, time_bias or None)");
}

}  // namespace

void bind_adapters(py::module_& module) {
  py::class_<TextAdapter> text(module, "TextAdapter");
  text.def(py::init<int64_t>(), py::arg("dim"));
  with_table(text);
  text.def(
      "forward",
      [](const TextAdapter& self, const std::vector<Tensor>& params, const Tensor& states) {
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), states);
      },
      py::arg("params"), py::arg("states"));
  bind_implicit_captioner(module);
}

}  // namespace vpd::bind
