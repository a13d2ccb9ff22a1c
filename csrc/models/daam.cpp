#include "models/daam.h"

#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/upsample_bicubic2d.h>

#include <algorithm>

#include "core/check.h"

namespace vpd::models {

namespace {

constexpr double kNoShare = 1e-6;   // of pixels that no token looks at
constexpr double kNoSpread = 1e-8;  // of maps that are the same everywhere

Tensor resized(const Tensor& maps, at::IntArrayRef size) {
  if (maps.sizes().slice(2) == size) return maps;
  return at::upsample_bicubic2d(maps, size, /*align_corners=*/false);
}

void check_maps(const char* op, const Tensor& maps) {
  VPD_CHECK(maps.dim() == 4 && maps.is_floating_point() && maps.numel() > 0, op,
            ": maps must be floating point [B, N, h, w], got ", maps.dtype(), " ", maps.sizes());
}

void check_size(const char* op, at::IntArrayRef size) {
  VPD_CHECK(size.size() == 2 && size[0] > 0 && size[1] > 0, op,
            ": size must be two positive numbers, got ", size);
}

}  // namespace

Tensor daam_layer(const Tensor& maps, at::IntArrayRef size) {
  constexpr const char* op = "daam";
  VPD_CHECK(maps.dim() == 5 && maps.is_floating_point() && maps.numel() > 0, op,
            ": maps of a layer must be floating point [B, heads, N, h, w], got ", maps.dtype(), " ",
            maps.sizes());
  check_size(op, size);
  Tensor sum;
  for (const Tensor& head : maps.unbind(1)) {
    const Tensor own = resized(head, size).clamp_min(0);
    sum = sum.defined() ? sum + own : own;
  }
  return sum / maps.size(1);
}

Tensor daam(const std::vector<Tensor>& layers, at::IntArrayRef size) {
  VPD_CHECK(!layers.empty(), "daam: expected the maps of at least one layer, got none");
  Tensor sum;
  int64_t heads = 0;
  for (const Tensor& maps : layers) {
    const Tensor own = daam_layer(maps, size) * maps.size(1);
    VPD_CHECK(!sum.defined() || own.sizes() == sum.sizes(),
              "daam: layers must agree in images and tokens, got maps ", maps.sizes(), " beside ",
              layers.front().sizes());
    sum = sum.defined() ? sum + own : own;
    heads += maps.size(1);
  }
  return sum / heads;
}

Tensor daam_normalized(const Tensor& maps, const Tensor& tokens) {
  constexpr const char* op = "daam_normalized";
  check_maps(op, maps);
  VPD_CHECK(tokens.scalar_type() == at::kBool && tokens.sizes() == maps.sizes().slice(0, 2), op,
            ": tokens must be bool ", maps.sizes().slice(0, 2), ", got ", tokens.dtype(), " ",
            tokens.sizes());
  const Tensor counted = maps * tokens.unsqueeze(-1).unsqueeze(-1);
  return maps / (counted.sum(1, /*keepdim=*/true) + kNoShare);
}

Tensor daam_expanded(const Tensor& maps, at::IntArrayRef size, bool absolute) {
  constexpr const char* op = "daam_expanded";
  check_maps(op, maps);
  check_size(op, size);
  const Tensor large = resized(maps, size);
  if (absolute) return large;
  const Tensor low = at::amin(large, {2, 3}, /*keepdim=*/true);
  return (large - low) / (at::amax(large, {2, 3}, /*keepdim=*/true) - low + kNoSpread);
}

}  // namespace vpd::models
