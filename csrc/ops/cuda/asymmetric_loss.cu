// Asymmetric loss in one pass over logits and targets, its gradient in another, where the formula
// in single operations makes about thirty. Neighbouring threads read neighbouring values. Sums are
// those of blocks, added up by the caller: no atomics, the same result every time.
#include "asymmetric_loss.h"
#include "common.cuh"

namespace vpd::ops::cuda {
namespace {

constexpr unsigned kMostBlocks = 1024;

__device__ inline bool is_set(const void* target, TargetType type, int64_t i) {
  switch (type) {
    case TargetType::kByte:
      return static_cast<const uint8_t*>(target)[i] != 0;
    case TargetType::kFloat:
      return static_cast<const float*>(target)[i] != 0;
    case TargetType::kDouble:
      return static_cast<const double*>(target)[i] != 0;
    case TargetType::kHalf:
      return load(static_cast<const __half*>(target)[i]) != 0;
    case TargetType::kBFloat16:
      return load(static_cast<const __nv_bfloat16*>(target)[i]) != 0;
  }
  return false;
}

// p = sigmoid(x) and 1 - p, which loses no digits near 0. NaN stays NaN.
template <typename A>
__device__ inline void sigmoid(A x, A& p, A& rest) {
  const A e = exp(x < 0 ? x : -x);  // <= 1
  const A most = 1 / (1 + e), least = e * most;
  p = x < 0 ? least : most;
  rest = x < 0 ? most : least;
}

// What loss and gradient are made of. u is what the log is taken of, w the focusing weight.
template <typename A>
struct Terms {
  A p, rest;       // sigmoid, 1 - sigmoid
  A q, unclipped;  // max(p - clip, 0), min(1 - p + clip, 1): they add up to 1
  A u, w;
};

template <typename A>
__device__ inline A at_least(A x, A least) {
  return x < least ? least : x;  // NaN stays
}

template <typename A>
__device__ inline Terms<A> terms_of(A x, bool positive, const AsymmetricLoss& loss) {
  Terms<A> t;
  sigmoid(x, t.p, t.rest);
  const A clip = static_cast<A>(loss.clip), below = t.rest + clip;
  t.q = at_least(t.p - clip, A(0));
  t.unclipped = below > 1 ? A(1) : below;
  t.u = positive ? t.p : t.unclipped;
  const A gamma = static_cast<A>(positive ? loss.gamma_pos : loss.gamma_neg);
  t.w = pow(positive ? t.rest : t.q, gamma);
  return t;
}

// Logs are taken of no less than this; the smallest keeps them finite.
template <typename A>
__device__ inline A floor_of(const AsymmetricLoss& loss) {
  return at_least(static_cast<A>(loss.eps), A(1e-30));
}

template <typename T>
__global__ void asymmetric_loss(const T* __restrict__ logits, Labelled x, AsymmetricLoss loss,
                                typename Accumulate<T>::type* __restrict__ values,
                                typename Accumulate<T>::type* __restrict__ partial) {
  using A = typename Accumulate<T>::type;
  const A eps = floor_of<A>(loss);
  A sum = 0;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < x.count;
       i += int64_t{gridDim.x} * kThreads) {
    const Terms<A> t = terms_of<A>(load(logits[i]), is_set(x.target, x.target_type, i), loss);
    const A value = -t.w * log(at_least(t.u, eps));
    if (values) {
      values[i] = value;
    } else {
      sum += value;
    }
  }
  if (!values) {
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  }
}

// -w (d log u + log u d log w), the second term with full_grad; d log u is 0 where a clamp holds u.
template <typename T>
__global__ void asymmetric_loss_backward(const typename Accumulate<T>::type* __restrict__ grad,
                                         bool one_for_all, const T* __restrict__ logits, Labelled x,
                                         AsymmetricLoss loss, bool full_grad,
                                         T* __restrict__ grad_logits) {
  using A = typename Accumulate<T>::type;
  const A eps = floor_of<A>(loss);
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < x.count;
       i += int64_t{gridDim.x} * kThreads) {
    const bool positive = is_set(x.target, x.target_type, i);
    const Terms<A> t = terms_of<A>(load(logits[i]), positive, loss);
    const A slope = t.p * t.rest;
    A d = positive ? t.rest : -slope / at_least(t.unclipped, eps);
    if (t.u < eps || (!positive && t.p <= static_cast<A>(loss.clip))) d = 0;
    if (full_grad) {
      const A dw = positive ? -static_cast<A>(loss.gamma_pos) * t.p
                            : static_cast<A>(loss.gamma_neg) * slope / at_least(t.q, A(1e-30));
      d += log(at_least(t.u, eps)) * dw;
    }
    store(grad_logits[i], -t.w * d * grad[one_for_all ? 0 : i]);
  }
}

}  // namespace

unsigned asymmetric_loss_blocks(int64_t count) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

cudaError_t launch_asymmetric_loss(const Labelled& x, const AsymmetricLoss& loss, void* values,
                                   void* partial, cudaStream_t stream) {
  return dispatch(x.type, [&](auto example) {
    using T = decltype(example);
    using A = typename Accumulate<T>::type;
    asymmetric_loss<T><<<asymmetric_loss_blocks(x.count), kThreads, 0, stream>>>(
        static_cast<const T*>(x.logits), x, loss, static_cast<A*>(values),
        static_cast<A*>(partial));
  });
}

cudaError_t launch_asymmetric_loss_backward(const Labelled& x, const AsymmetricLoss& loss,
                                            bool full_grad, const void* grad, bool one_for_all,
                                            void* grad_logits, cudaStream_t stream) {
  return dispatch(x.type, [&](auto example) {
    using T = decltype(example);
    using A = typename Accumulate<T>::type;
    asymmetric_loss_backward<T><<<asymmetric_loss_blocks(x.count), kThreads, 0, stream>>>(
        static_cast<const A*>(grad), one_for_all, static_cast<const T*>(x.logits), x, loss,
        full_grad, static_cast<T*>(grad_logits));
  });
}

}  // namespace vpd::ops::cuda
