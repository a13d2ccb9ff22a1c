#pragma once
#include "core/params.h"
#include "ops/batch_norm.h"

namespace vpd::nn {

// Group normalisation, optionally with the SiLU that follows it in every residual block.
class GroupNorm {
 public:
  GroupNorm(Scope scope, int64_t groups, int64_t channels, double eps);
  Tensor operator()(const Params& p, const Tensor& x) const;  // norm
  Tensor silu(const Params& p, const Tensor& x) const;        // SiLU(norm)

 private:
  int64_t groups_;
  double eps_;
  Slot weight_;
  Slot bias_;
};

// Over the last dimension.
class LayerNorm {
 public:
  LayerNorm(Scope scope, int64_t channels, double eps = 1e-5);
  Tensor operator()(const Params& p, const Tensor& x) const;

 private:
  int64_t channels_;
  double eps_;
  Slot weight_;
  Slot bias_;
};

// Batch normalisation with PyTorch's defaults (eps 1e-5, momentum 0.1). In training mode the call
// normalises with the batch's statistics and moves the running ones, which are buffers of the
// table, in place: so it must not stand in what the backward recomputes. With a group, the batch is
// that of all its processes.
class BatchNorm2d {
 public:
  BatchNorm2d(Scope scope, int64_t channels);
  Tensor operator()(const Params& p, const Tensor& x, bool training,
                    const ops::ProcessGroup* group = nullptr) const;
  // With the ReLU that follows it in every head.
  Tensor relu(const Params& p, const Tensor& x, bool training,
              const ops::ProcessGroup* group = nullptr) const;

 private:
  static constexpr double kMomentum = 0.1, kEps = 1e-5;
  void count(const Params& p, const Tensor& x, const ops::ProcessGroup* group) const;

  Slot weight_;
  Slot bias_;
  Slot running_mean_;
  Slot running_var_;
  Slot num_batches_tracked_;
};

}  // namespace vpd::nn
