#pragma once
#include <memory>

#include "core/params.h"
#include "nn/bottleneck.h"

namespace vpd::models {

struct OdiseBackboneConfig {
  std::vector<int64_t> in_channels;  // of each feature
  std::vector<int64_t> in_strides;   // of each, in pixels of what the diffusion model sees
  int64_t projection_dim = 512;      // of the maps; bottlenecks have a quarter of it inside
  int64_t num_res_blocks = 1;        // bottlenecks for each feature
  int64_t min_stride = 4;            // of a map; finer features are seen at this one
  int64_t max_stride = 32;           // coarser ones at this one
  int64_t norm_groups = 32;
};

// From the features that a frozen diffusion model was tapped for to a pyramid of maps (Xu et al.
// 2023, ODISE): each feature is resized to its stride, projected by bottlenecks of its own, and
// those of one stride are summed. Keys: feature_projections.<feature>.<bottleneck>.*
class OdiseBackbone : public std::enable_shared_from_this<OdiseBackbone> {
 public:
  explicit OdiseBackbone(OdiseBackboneConfig config);
  OdiseBackbone(const OdiseBackbone&) = delete;

  const ParamTable& table() const { return table_; }
  // Of the maps, fine to coarse.
  const std::vector<int64_t>& strides() const { return strides_; }
  // features [B, in_channels[i], h_i, w_i], of any sizes; height and width of the picture,
  // multiples of the coarsest stride -> for each stride [B, projection_dim, height / stride, width
  // / stride]. `recompute`: the backward projects again instead of keeping what it needs; it keeps
  // this alive if it is held by a shared_ptr.
  std::vector<Tensor> forward(const Params& p, const std::vector<Tensor>& features, int64_t height,
                              int64_t width, bool recompute = false) const;

 private:
  struct Projection {
    SlotRange own;  // its parameters
    int64_t stride;
    std::vector<nn::Bottleneck> blocks;
    Tensor operator()(const Params& p, Tensor x, at::IntArrayRef size) const;
  };

  OdiseBackboneConfig config_;
  ParamTable table_;
  std::vector<int64_t> strides_;
  std::vector<Projection> projections_;
};

}  // namespace vpd::models
