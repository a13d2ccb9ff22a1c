#pragma once
#include <map>
#include <set>
#include <utility>

#include "models/unet.h"

namespace vpd::models {

// Which blocks a forward must run and which of them are asked for maps: UNetTaps worked out against
// one network.
class UNetPlan {
 public:
  UNetPlan(const UNetTaps& taps, const std::vector<AttentionLayer>& layers, int64_t down_blocks,
           int64_t up_blocks, int64_t num_res_blocks, int64_t levels);

  // Position of the last block to run: input blocks, then the middle, then output blocks, counted
  // from 0.
  int64_t last = 0;
  // Whether that block runs: not where its input is all that is asked of it.
  bool runs_last = false;

  bool taps_input(const std::string& block) const { return inputs_.count(block) > 0; }
  bool taps_output(const std::string& block) const { return outputs_.count(block) > 0; }
  // For a transformer such as "output_blocks.3.1": (index of its block, strides its map contributes
  // to: the finest grid, 1, for attribution maps).
  std::vector<std::pair<int64_t, std::vector<int64_t>>> map_layers(
      const std::string& transformer) const;

 private:
  void plan_maps(const UNetTaps& taps, const std::vector<AttentionLayer>& layers, int64_t levels);
  void plan_means(const UNetTaps& taps, const std::vector<AttentionLayer>& selected);
  void plan_daam(const UNetTaps& taps, const std::vector<AttentionLayer>& selected, int64_t levels);

  std::set<std::string> inputs_;
  std::set<std::string> outputs_;
  std::map<std::string, std::vector<int64_t>> strides_;  // layer name -> strides
};

// Averages maps over layers as they come, one running sum per stride.
class MapAccumulator {
 public:
  explicit MapAccumulator(const UNetTaps& taps) : taps_(taps) {}
  // What a layer at `stride` is to hand over. Attribution maps are cut off at zero head by head,
  // which only matters where a map is resized.
  nn::MapRequest request(int64_t stride) const {
    return {true, taps_.per_head || (taps_.fusion == MapFusion::kDaam && stride > 1)};
  }
  // map [B, (heads,) N, h, w] of a layer at `stride`, resized bilinearly for every other stride it
  // is asked for.
  void add(const Tensor& map, const std::vector<int64_t>& strides, int64_t stride);
  std::map<int64_t, Tensor> means() const;

 private:
  Tensor resized(const Tensor& map, int64_t stride, int64_t target) const;

  const UNetTaps& taps_;
  std::map<int64_t, std::pair<Tensor, int64_t>> sums_;
};

}  // namespace vpd::models
