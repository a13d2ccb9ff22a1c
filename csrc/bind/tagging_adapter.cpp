#include "models/tagging_adapter.h"

#include "bind/network.h"

namespace vpd::bind {

using models::TaggingAdapter;
using models::TaggingAdapterConfig;

void bind_tagging_adapter(py::module_& module) {
  py::class_<TaggingAdapter> net(module, "TaggingAdapter");
  net.def(
      py::init([](int64_t dim, std::optional<int64_t> text_dim, std::optional<int64_t> image_dim,
                  int64_t queries, int64_t blocks, int64_t heads, int64_t hidden, bool single_cross,
                  const std::string& head_norm) {
        return std::make_unique<TaggingAdapter>(
            TaggingAdapterConfig{dim, text_dim, image_dim, queries, blocks, heads, hidden,
                                 single_cross, models::parse_head_norm(head_norm)});
      }),
      py::kw_only(), py::arg("dim"), py::arg("text_dim"), py::arg("image_dim"), py::arg("queries"),
      py::arg("blocks"), py::arg("heads"), py::arg("hidden"), py::arg("single_cross"),
      py::arg("head_norm"));
  with_table(net);
  net.def(
      "forward",
      [](const TaggingAdapter& self, const std::vector<Tensor>& params,
         const std::optional<Tensor>& text, const std::optional<Tensor>& text_mask,
         const std::optional<Tensor>& image, const std::optional<Tensor>& classes, bool attention) {
        py::gil_scoped_release release;
        const Params p(self.table(), params);
        models::TaggingOutput out = self.forward(p, text, text_mask, image, attention);
        std::optional<Tensor> logits;
        if (classes) logits = self.scores(p, out.context, *classes);
        return std::make_tuple(std::move(out.context), std::move(logits),
                               std::move(out.text_attention), std::move(out.image_attention));
      },
      py::arg("params"), py::arg("text"), py::arg("text_mask"), py::arg("image"),
      py::arg("classes"), py::arg("attention"),
      "(context, logits or None, attention over text and over image or None)");
}

}  // namespace vpd::bind
