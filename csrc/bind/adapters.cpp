#include "bind/network.h"
#include "models/text_adapter.h"

namespace vpd::bind {

using models::TextAdapter;

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
}

}  // namespace vpd::bind
