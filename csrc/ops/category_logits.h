#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vpd::ops {

// How many categories there are. categories: whose name each of `names` names is, in any order;
// throws std::invalid_argument unless every one of 0 ... K - 1 has one.
int64_t count_categories(const std::vector<int64_t>& categories, int64_t names);

// Scores of categories that have names: scale times the cosine between an embedding and the nearest
// name of each category (Xu et al. 2023, equation 5; synonyms as in their code).
//   embeddings [..., D], names [S, D], scale [] -> [..., K], float32 at least
// categories: as for count_categories.
at::Tensor category_logits(const at::Tensor& embeddings, const at::Tensor& names,
                           const std::vector<int64_t>& categories, const at::Tensor& scale);

}  // namespace vpd::ops
