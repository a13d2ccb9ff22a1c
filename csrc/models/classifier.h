#pragma once
#include "core/check.h"
#include "core/params.h"
#include "nn/conv.h"

namespace vpd::models {

// What heads that classify pixels have in common in mmsegmentation: conv_seg, its start, and the
// dropout before it.

inline nn::Conv1x1 conv_seg(ParamTable& table, int64_t channels, int64_t num_classes) {
  return {Scope(table) / "conv_seg", channels, num_classes, Init::normal(0.01)};
}

inline void check_classifier(const char* config, int64_t channels, int64_t num_classes,
                             double dropout) {
  VPD_CHECK(channels > 0 && num_classes > 0, config,
            ": channels and num_classes must be positive, got ", channels, " and ", num_classes);
  VPD_CHECK(dropout >= 0 && dropout < 1, config, ": dropout must be in [0, 1), got ", dropout);
}

}  // namespace vpd::models
