#include "ops/deformable_attention.h"

#include "core/check.h"

namespace vpd::ops {
using at::Tensor;

namespace {
constexpr const char* kName = "deformable_attention";
}

void check_deformable_attention(const Tensor& value, const Tensor& shapes, const Tensor& locations,
                                const Tensor& weights) {
  VPD_CHECK(value.dim() == 4 && value.is_floating_point(), kName,
            ": value must be floating point [B, S, heads, D], got ", value.dtype(), " ",
            value.sym_sizes());
  VPD_CHECK(shapes.dim() == 2 && shapes.sym_size(1) == 2 && shapes.scalar_type() == at::kLong,
            kName, ": shapes must be int64 [L, 2], got ", shapes.dtype(), " ", shapes.sym_sizes());
  VPD_CHECK(locations.dim() == 6 && locations.is_floating_point() &&
                locations.sym_size(0) == value.sym_size(0) &&
                locations.sym_size(2) == value.sym_size(2) &&
                locations.sym_size(3) == shapes.sym_size(0) && locations.sym_size(5) == 2,
            kName, ": locations must be floating point [", value.sym_size(0), ", Q, ",
            value.sym_size(2), ", ", shapes.sym_size(0), ", P, 2], got ", locations.dtype(), " ",
            locations.sym_sizes());
  VPD_CHECK(weights.is_floating_point() && weights.sym_sizes() == locations.sym_sizes().slice(0, 5),
            kName, ": weights must be floating point ", locations.sym_sizes().slice(0, 5), ", got ",
            weights.dtype(), " ", weights.sym_sizes());
  VPD_CHECK(locations.device() == value.device() && weights.device() == value.device(), kName,
            ": locations and weights must be on ", value.device(), " as value, got ",
            locations.device(), " and ", weights.device());
  if (has_values(shapes) && !value.sym_size(1).is_symbolic()) {
    level_sizes(shapes, value.size(1));
  }
}

void check_deformable_attention_backward(const Tensor& grad, const Tensor& value,
                                         const Tensor& shapes, const Tensor& locations,
                                         const Tensor& weights) {
  check_deformable_attention(value, shapes, locations, weights);
  const c10::SymDimVector expected{value.sym_size(0), locations.sym_size(1),
                                   value.sym_size(2) * value.sym_size(3)};
  VPD_CHECK(grad.sym_sizes() == c10::SymIntArrayRef(expected), kName, "_backward: grad must be ",
            c10::SymIntArrayRef(expected), ", got ", grad.sym_sizes());
}

std::vector<LevelSize> level_sizes(const Tensor& shapes, int64_t pixels) {
  const Tensor host = shapes.cpu();
  const auto table = host.accessor<int64_t, 2>();
  std::vector<LevelSize> sizes;
  int64_t total = 0;
  for (int64_t i = 0; i < table.size(0); ++i) {
    const LevelSize size{table[i][0], table[i][1]};
    VPD_CHECK(size.height > 0 && size.width > 0, kName, ": sizes of levels must be positive, got ",
              size.height, " x ", size.width);
    VPD_CHECK(size.height <= pixels && size.width <= pixels, kName, ": value has ", pixels,
              " pixels, too few for a level of ", size.height, " x ", size.width);
    total += size.height * size.width;
    sizes.push_back(size);
  }
  VPD_CHECK(total == pixels, kName, ": value must have the ", total,
            " pixels of the levels in shapes, got ", pixels);
  return sizes;
}

Tensor deformable_attention(const Tensor& value, const Tensor& shapes, const Tensor& locations,
                            const Tensor& weights) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::deformable_attention", "")
                             .typed<decltype(deformable_attention)>();
  return op.call(value, shapes, locations, weights);
}

std::tuple<Tensor, Tensor, Tensor> deformable_attention_backward(const Tensor& grad,
                                                                 const Tensor& value,
                                                                 const Tensor& shapes,
                                                                 const Tensor& locations,
                                                                 const Tensor& weights) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::deformable_attention_backward", "")
                             .typed<decltype(deformable_attention_backward)>();
  return op.call(grad, value, shapes, locations, weights);
}

TORCH_LIBRARY_FRAGMENT(vpd, m) {
  m.def(
      "deformable_attention(Tensor value, Tensor shapes, Tensor locations, Tensor weights) -> "
      "Tensor");
  m.def(
      "deformable_attention_backward(Tensor grad, Tensor value, Tensor shapes, Tensor locations, "
      "Tensor weights) -> (Tensor, Tensor, Tensor)");
}

}  // namespace vpd::ops
