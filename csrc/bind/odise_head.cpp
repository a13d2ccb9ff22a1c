#include "models/odise_head.h"

#include "bind/head.h"
#include "losses/grounding.h"
#include "ops/mask_pooling.h"

namespace vpd::bind {

using models::Mask2FormerHead;
using models::OdiseHead;
using models::OdiseTextConfig;
using models::OdiseTextHead;
using Tensors = std::vector<Tensor>;

void bind_odise_head(py::module_& module) {
  py::class_<OdiseHead, Mask2FormerHead>(module, "OdiseHead")
      .def(py::init([](const Mask2FormerHead& like, int64_t projection_dim) {
             return std::make_unique<OdiseHead>(like.config(), projection_dim);
           }),
           py::arg("like"), py::arg("projection_dim"))
      .def(
          "decode_with_embeddings",
          [](const OdiseHead& self, const Tensors& params, const Tensor& mask_features,
             const Tensors& levels, bool last_only) {
            py::gil_scoped_release release;
            models::OdiseOutput out =
                self.decode(Params(self.table(), params), {mask_features, levels}, last_only);
            return std::tuple(std::move(out.decoded.logits), std::move(out.decoded.masks),
                              std::move(out.decoded.queries), std::move(out.embeddings),
                              std::move(out.scale));
          },
          py::arg("params"), py::arg("mask_features"), py::arg("levels"), py::arg("last_only"),
          "(logits, masks, queries, embeddings, scale)");

  py::class_<OdiseTextHead> text(module, "OdiseTextHead");
  text.def(
      py::init([](int64_t text_dim, std::optional<int64_t> projection_dim, bool null) {
        return std::make_unique<OdiseTextHead>(OdiseTextConfig{text_dim, projection_dim, null});
      }),
      py::kw_only(), py::arg("text_dim"), py::arg("projection_dim"), py::arg("null"));
  with_table(text);
  text.def(
      "project",
      [](const OdiseTextHead& self, const Tensors& params, const Tensor& texts) {
        py::gil_scoped_release release;
        return self.project(Params(self.table(), params), texts);
      },
      py::arg("params"), py::arg("texts"));
  text.def(
      "logits",
      [](const OdiseTextHead& self, const Tensors& params, const Tensors& embeddings,
         const Tensor& texts, const std::vector<int64_t>& categories, const Tensor& scale) {
        py::gil_scoped_release release;
        return self.logits(Params(self.table(), params), embeddings, texts, categories, scale);
      },
      py::arg("params"), py::arg("embeddings"), py::arg("texts"), py::arg("categories"),
      py::arg("scale"));

  module.def("mask_pooling", &ops::mask_pooling, py::arg("x"), py::arg("masks"), py::arg("soft"),
             py::call_guard<py::gil_scoped_release>());
  module.def(
      "mask_grounding_loss",
      [](const Tensors& embeddings, const Tensor& words, const Tensor& valid, const Tensor& scale,
         const std::string& form, const GroupTuple& group) {
        py::gil_scoped_release release;
        return losses::mask_grounding_loss(embeddings, words, valid, scale,
                                           losses::parse_grounding_form(form),
                                           mode(/*training=*/true, group).group);
      },
      py::arg("embeddings"), py::arg("words"), py::arg("valid"), py::arg("scale"), py::arg("form"),
      py::arg("group"));
}

}  // namespace vpd::bind
