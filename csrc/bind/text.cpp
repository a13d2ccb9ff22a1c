// CLIP's byte-pair encoding as programs without Python have it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "text/tokenizer.h"

namespace vpd::bind {

namespace py = pybind11;

void bind_text(py::module_& module) {
  module.def("clean_text", &text::clean_text, py::arg("text"));
  py::class_<text::Tokenizer>(module, "Tokenizer")
      .def(py::init<const std::string&>(), py::arg("merges"))
      .def("encode", &text::Tokenizer::encode, py::arg("text"),
           "ids of a text alone, without start and end")
      .def(
          "__call__",
          [](const text::Tokenizer& self, const std::vector<std::string>& texts, int64_t length) {
            const text::Tokens tokens = self(texts, length);
            return std::pair(tokens.ids, tokens.truncated);
          },
          py::arg("texts"), py::arg("length"), "(ids [B, length], truncated [B])");
}

}  // namespace vpd::bind
