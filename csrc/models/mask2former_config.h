#pragma once
#include <cstdint>
#include <optional>
#include <vector>

namespace vpd::models {

// Names are those of the original's constructors; defaults are its panoptic models'.
struct Mask2FormerConfig {
  std::vector<int64_t> in_channels;    // of the feature maps, fine to coarse
  std::optional<int64_t> num_classes;  // beside "no object"; none: masks without classes
  int64_t conv_dim = 256;              // channels of the pixel decoder
  int64_t mask_dim = 256;              // channels of the mask features
  int64_t hidden_dim = 256;            // channels of the queries
  int64_t num_queries = 100;
  int64_t nheads = 8;
  int64_t dim_feedforward = 2048;
  int64_t dec_layers = 9;
  int64_t transformer_nheads = 8;  // "transformer" is the pixel decoder's encoder
  int64_t transformer_dim_feedforward = 1024;
  int64_t transformer_enc_layers = 6;
  int64_t transformer_levels = 3;  // how many of the coarsest maps it takes
  int64_t num_feature_levels = 3;  // how many of the coarsest maps queries read in turn
  int64_t n_points = 4;            // samples of each head in each map
  int64_t norm_groups = 32;
  bool pre_norm = false;               // norms before the decoder's parts, not behind them
  bool enforce_input_project = false;  // even where conv_dim is hidden_dim
};

}  // namespace vpd::models
