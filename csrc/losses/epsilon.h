#pragma once
#include "losses/common.h"

namespace vpd::losses {

// Mean squared error of the predicted noise, per sample, times min(1 / alpha_bar, cap). The weight
// turns the error of epsilon into that of v (Salimans and Ho 2022) up to the cap; cap 1 is the
// plain epsilon loss (Ho et al. 2020).
//   prediction and noise [B, ...], alpha_bar [B] in (0, 1]: cumulative alpha of each sample's
//   timestep; kNone -> [B]
at::Tensor epsilon_loss(const at::Tensor& prediction, const at::Tensor& noise,
                        const at::Tensor& alpha_bar, double cap, Reduction reduction);

}  // namespace vpd::losses
