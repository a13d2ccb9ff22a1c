#include "ops/pixel_classes.h"

#include "bind/network.h"

namespace vpd::bind {

void bind_pixel_classes(py::module_& module) {
  module.def(
      "pixel_classes",
      [](const std::vector<Tensor>& scores, const std::vector<bool>& flipped,
         std::pair<int64_t, int64_t> size, bool probability) {
        ops::PixelClasses found;
        {
          py::gil_scoped_release release;
          found = ops::pixel_classes(scores, flipped, size.first, size.second, probability);
        }
        std::optional<Tensor> chance;
        if (probability) chance = found.probability;
        return std::make_pair(found.classes, chance);
      },
      py::arg("scores"), py::arg("flipped"), py::arg("size"), py::arg("probability"));
}

}  // namespace vpd::bind
