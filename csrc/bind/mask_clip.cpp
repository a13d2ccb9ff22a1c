#include "models/mask_clip.h"

#include "bind/network.h"
#include "ops/category_logits.h"
#include "ops/open_vocabulary.h"

namespace vpd::bind {

using models::CLIPImageEncoder;
using models::MaskRule;

void bind_mask_clip(py::module_& module) {
  module.def(
      "mask_tokens",
      [](const CLIPImageEncoder& encoder, const std::vector<Tensor>& params, const Tensor& pixels,
         const Tensor& masks, bool add_one) {
        return models::mask_tokens(encoder, Params(encoder.table(), params), pixels, masks,
                                   add_one ? MaskRule::kAddOne : MaskRule::kHide);
      },
      py::arg("encoder"), py::arg("params"), py::arg("pixels"), py::arg("masks"),
      py::arg("add_one"), py::call_guard<py::gil_scoped_release>());
  module.def(
      "mask_pooled",
      [](const CLIPImageEncoder& encoder, const std::vector<Tensor>& params, const Tensor& pixels,
         const Tensor& masks) {
        return models::mask_pooled(encoder, Params(encoder.table(), params), pixels, masks);
      },
      py::arg("encoder"), py::arg("params"), py::arg("pixels"), py::arg("masks"),
      py::call_guard<py::gil_scoped_release>());
  module.def("category_logits", &ops::category_logits, py::arg("embeddings"), py::arg("names"),
             py::arg("categories"), py::arg("scale"), py::call_guard<py::gil_scoped_release>());
  module.def("geometric_mean", &ops::geometric_mean, py::arg("logits"), py::arg("other"),
             py::arg("seen"), py::arg("alpha"), py::arg("beta"),
             py::call_guard<py::gil_scoped_release>());
  module.def("with_no_object", &ops::with_no_object, py::arg("logits"), py::arg("nothing"),
             py::call_guard<py::gil_scoped_release>());
}

}  // namespace vpd::bind
