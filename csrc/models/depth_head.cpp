#include "models/depth_head.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <algorithm>

#include "core/check.h"
#include "nn/feature_maps.h"
#include "nn/layout.h"

namespace vpd::models {
namespace {

constexpr size_t kLevels = 4;
constexpr double kEps = 1e-5;
constexpr int64_t kBilinearSteps = 2;

// VPD draws the encoder's weights from a normal distribution cut off at +-2, which is 100 standard
// deviations: not cut off.
const Init kEncoderStart = Init::normal(0.02);
const Init kDecoderStart = Init::normal(0.001);

DepthHeadConfig checked(DepthHeadConfig config) {
  VPD_CHECK(config.dims.size() == kLevels && nn::are_channels(config.dims),
            "DepthHeadConfig: dims must be four positive channel counts, fine to coarse, got ",
            at::IntArrayRef(config.dims));
  VPD_CHECK(nn::are_channels(config.num_filters) && config.embed_dim > 0,
            "DepthHeadConfig: num_filters must be at least one positive channel count and "
            "embed_dim positive, got ",
            at::IntArrayRef(config.num_filters), " and ", config.embed_dim);
  VPD_CHECK(config.max_depth > 0, "DepthHeadConfig: max_depth must be positive, got ",
            config.max_depth);
  return config;
}

int64_t joined_channels(const std::vector<int64_t>& dims) {
  return dims[0] + dims[1] + dims[2] + dims[3];
}

}  // namespace

DepthHead::DepthHead(DepthHeadConfig config)
    : config_(checked(std::move(config))),
      fine_in_(Scope(table_) / "encoder" / "layer1" / 0, config_.dims[0], config_.dims[0],
               {.stride = 2, .init = kEncoderStart}),
      fine_norm_(Scope(table_) / "encoder" / "layer1" / 1, config_.norm_groups, config_.dims[0],
                 kEps),
      fine_out_(Scope(table_) / "encoder" / "layer1" / 3, config_.dims[0], config_.dims[0],
                {.stride = 2, .init = kEncoderStart}),
      middle_(Scope(table_) / "encoder" / "layer2" / 0, config_.dims[1], config_.dims[1],
              {.stride = 2, .init = kEncoderStart}),
      out_(Scope(table_) / "encoder" / "out_layer" / 0, joined_channels(config_.dims),
           8 * config_.embed_dim, kEncoderStart),
      out_norm_(Scope(table_) / "encoder" / "out_layer" / 1, config_.norm_groups,
                8 * config_.embed_dim, kEps),
      deconvs_([this] {
        const Scope scope = Scope(table_) / "decoder" / "deconv_layers";
        std::vector<Deconv> layers;
        int64_t in = 8 * config_.embed_dim;
        for (const int64_t out : config_.num_filters) {
          const int64_t place = 3 * static_cast<int64_t>(layers.size());
          layers.push_back(Deconv{(scope / place).declare("weight", {in, out, 2, 2}, kDecoderStart),
                                  nn::BatchNorm2d(scope / (place + 1), out)});
          in = out;
        }
        return layers;
      }()),
      conv_(Scope(table_) / "decoder" / "conv_layers" / 0, config_.num_filters.back(),
            config_.embed_dim, {.init = kDecoderStart}),
      conv_norm_(Scope(table_) / "decoder" / "conv_layers" / 1, config_.embed_dim),
      last_(Scope(table_) / "last_layer_depth" / 0, config_.embed_dim, config_.embed_dim,
            {.init = kDecoderStart}),
      depth_(Scope(table_) / "last_layer_depth" / 2, config_.embed_dim, 1,
             {.init = kDecoderStart}) {}

Tensor DepthHead::encode(const Params& p, const std::vector<Tensor>& features) const {
  const std::vector<Tensor> maps =
      nn::prepare_maps("depth_head", features, config_.dims, p[Slot(0)]);
  for (size_t i = 0; i < kLevels; ++i) {
    const int64_t ratio = int64_t{1} << (kLevels - 1 - i);
    const int64_t height = maps.back().size(2) * ratio, width = maps.back().size(3) * ratio;
    VPD_CHECK(maps[i].size(2) == height && maps[i].size(3) == width, "depth_head: feature map ", i,
              " must be ", ratio, " times as large as the coarsest, ", height, " x ", width,
              ", got ", maps[i].size(2), " x ", maps[i].size(3));
  }
  const Tensor fine = fine_out_(p, fine_norm_(p, fine_in_(p, maps[0])).relu_());
  const Tensor middle = middle_(p, maps[1]);
  Tensor joined;
  {
    // Autocast would take the map to float32 and back.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const Tensor coarse = at::upsample_nearest2d(maps[3], maps[2].sizes().slice(2));
    joined = at::cat({fine, middle, maps[2], coarse}, 1);
  }
  return out_norm_(p, out_(p, joined)).relu_();
}

Tensor DepthHead::decode(const Params& p, const Tensor& encoded, Crop crop,
                         const nn::Mode& mode) const {
  Tensor x =
      nn::prepare_maps("depth_head: decode", {encoded}, {8 * config_.embed_dim}, p[Slot(0)])[0];
  for (size_t side = 0; side < crop.size(); ++side) {
    const int64_t dim = static_cast<int64_t>(side) + 2, size = x.size(dim);
    VPD_CHECK(crop[side] >= 0 && crop[side] < size, "depth_head: crop must leave something of ",
              encoded.size(2), " rows and ", encoded.size(3), " columns, got ", crop[0], " and ",
              crop[1]);
    x = x.narrow(dim, 0, size - crop[side]);
  }
  x = nn::channels_last(x);
  for (const Deconv& deconv : deconvs_) {
    x = at::conv_transpose2d(x, p[deconv.weight], {}, /*stride=*/2);
    x = deconv.norm.relu(p, x, mode.training, mode.processes());
  }
  x = conv_norm_.relu(p, conv_(p, x), mode.training, mode.processes());
  for (int64_t step = 0; step < kBilinearSteps; ++step) {
    x = nn::resized(x, {2 * x.size(2), 2 * x.size(3)});
  }
  x = depth_(p, last_(p, x).relu_());
  // Metres in bfloat16 would be steps of centimetres.
  if (x.scalar_type() != at::kDouble) x = x.to(at::kFloat);
  return at::sigmoid(x) * config_.max_depth;
}

Tensor DepthHead::forward(const Params& p, const std::vector<Tensor>& features, Crop crop,
                          const nn::Mode& mode) const {
  return decode(p, encode(p, features), crop, mode);
}

}  // namespace vpd::models
