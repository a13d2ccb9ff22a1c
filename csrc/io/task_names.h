#pragma once
// One name for what checkpoints name differently outside their networks: heads, adapters, class
// embeddings.
#include <string>
#include <string_view>

#include "io/layouts.h"

namespace vpd::io {

// Whether a file has heads of transformers' UperNet.
bool has_transformers_upernet(const Entries& entries);

// Names as vpd's task models have them: text_adapter.gamma, class_embeddings, head.*, aux_head.*,
// adapter.*, words.*, clip.logit_scale
//   official VPD, mmsegmentation: gamma beside the adapter; decode_head.*, auxiliary_head.*; in
//     depth everything below "encoder." and the head in parts
//   transformers' UperNet: batch_norm and classifier for bn and conv_seg
//   Mask2Former, ODISE: sem_seg_head.*; its first files: static_query for query_feat
//   ODISE: backbone.feature_extractor.* for the captioner; category_head.* or word_head.*
//   CLIP: logit_scale beside the towers
//   DistributedDataParallel: "module." before every name
// Names of vpd's own, and names that mean something else, stay as they are.
class TaskNames {
 public:
  explicit TaskNames(const Entries& entries) : transformers_(has_transformers_upernet(entries)) {}
  std::string operator()(std::string_view name) const;

 private:
  bool transformers_;
};

}  // namespace vpd::io
