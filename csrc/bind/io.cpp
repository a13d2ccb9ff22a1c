// Reading, writing and matching weights.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <system_error>

#include "io/mask2former_names.h"
#include "io/match.h"
#include "io/moving_average.h"
#include "io/openai_clip.h"
#include "io/pickle_scan.h"
#include "io/weights.h"

namespace vpd::bind {
namespace {

namespace py = pybind11;

using EntryTuple = std::pair<std::string, std::vector<int64_t>>;

io::Entries entries(const std::vector<EntryTuple>& tuples) {
  io::Entries result;
  for (const auto& [name, shape] : tuples) result.push_back({name, shape});
  return result;
}

io::Naming naming(const std::string& name) {
  return name == "diffusers" ? io::Naming::kDiffusers : io::Naming::kOriginal;
}

// (format, tensors, metadata, entry, skipped classes)
using FileTuple =
    std::tuple<std::string, io::NamedTensors, io::Metadata, std::string, std::vector<std::string>>;

FileTuple read_weights(const std::string& path) {
  py::gil_scoped_release release;
  io::WeightsFile file = io::read_weights(path);
  return {std::move(file.format), std::move(file.tensors), std::move(file.metadata),
          std::move(file.entry), std::move(file.skipped)};
}

}  // namespace

void bind_io(py::module_& module) {
  // An operating-system error keeps its number, so that Python makes it FileNotFoundError and so
  // on.
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const std::system_error& error) {
      const std::string what = error.what();
      const std::string text = error.code().message();
      const std::string path = what.substr(0, what.size() - std::min(what.size(), text.size() + 2));
      const py::object value =
          py::module_::import("builtins").attr("OSError")(error.code().value(), text, path);
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())), value.ptr());
    }
  });

  module.def(
      "read_weights", &read_weights, py::arg("path"),
      "(format, tensors, metadata, entry, skipped classes) of a safetensors or PyTorch file");
  module.def(
      "check_pickle", [](const py::bytes& data) { io::check_pickle(std::string_view(data)); },
      py::arg("data"),
      "Raises ValueError unless what a pickle's opcodes ask for lies inside of it.");
  module.def(
      "write_safetensors",
      [](const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
         const std::vector<std::pair<std::string, std::string>>& metadata) {
        py::gil_scoped_release release;
        io::write_safetensors(path, tensors, metadata);
      },
      py::arg("path"), py::arg("tensors"), py::arg("metadata"));

  module.def(
      "detect_layout",
      [](const std::vector<EntryTuple>& file) {
        const io::Entries all = entries(file);
        return io::detect_layout(all, io::find_networks(all));
      },
      py::arg("file"));

  module.def("openai_clip_to_transformers", &io::openai_clip_to_transformers, py::arg("file"),
             py::arg("path"), "CLIP towers by OpenAI's names, by transformers'; the rest as it is");

  module.def("mask2former_from_transformers", &io::mask2former_from_transformers, py::arg("file"),
             py::arg("path"),
             "heads of Mask2Former by transformers' names, by the original's; the rest as it is");

  module.def("with_moving_average", &io::with_moving_average, py::arg("file"), py::arg("wanted"),
             py::arg("path"), "the averages of a U-Net's weights in their place");

  py::class_<io::Match>(module, "WeightMatch")
      .def_readonly("layout", &io::Match::layout)
      .def_readonly("pairs", &io::Match::pairs)
      .def_readonly("missing", &io::Match::missing)
      .def_readonly("absent", &io::Match::absent)
      .def_readonly("unexpected", &io::Match::unexpected)
      .def_property_readonly("mismatched", [](const io::Match& match) {
        std::vector<std::tuple<std::string, std::vector<int64_t>, std::vector<int64_t>>> rows;
        for (const auto& m : match.mismatched) rows.emplace_back(m.name, m.expected, m.got);
        return rows;
      });
  module.def(
      "match_weights",
      [](const std::vector<EntryTuple>& file, const std::vector<EntryTuple>& target,
         const std::string& path) {
        return io::match_weights(entries(file), entries(target), path);
      },
      py::arg("file"), py::arg("module"), py::arg("path"));
  module.def(
      "plan_conversion",
      [](const std::vector<EntryTuple>& file, const std::string& to, const std::string& path) {
        std::vector<std::tuple<std::string, std::string, std::vector<int64_t>>> rows;
        for (auto& row : io::plan_conversion(entries(file), naming(to), path)) {
          rows.emplace_back(file[row.source].first, std::move(row.target), std::move(row.shape));
        }
        return rows;
      },
      py::arg("file"), py::arg("to"), py::arg("path"));
}

}  // namespace vpd::bind
