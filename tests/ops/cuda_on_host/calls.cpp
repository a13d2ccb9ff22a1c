// The launchers for ctypes. KERNEL: which of them is compiled here.
#include <algorithm>

#include KERNEL
using namespace vpd::ops::cuda;

extern "C" {

#ifdef CROSS_ATTENTION
void on_gpu(int compute_capability) { capability = compute_capability; }
int cross_attention(int type, const int64_t* sizes, const void* const* in, const bool* mask,
                    float scale, bool per_head, void* const* out, float* sums) {
  const CrossAttentionCall call{static_cast<Type>(type),
                                sizes[0],
                                sizes[1],
                                sizes[2],
                                sizes[3],
                                sizes[4],
                                in[0],
                                in[1],
                                in[2],
                                mask,
                                scale,
                                per_head,
                                out[0],
                                out[1],
                                sums};
  if (!cross_attention_takes(call)) return -1;
  if (cross_attention_sums(call) != (sums != nullptr)) return -2;
  return launch_cross_attention(call, nullptr);
}
#endif

#ifdef GEGLU
int geglu(int type, const void* x, void* y, int64_t rows, int64_t width) {
  return launch_geglu(static_cast<Type>(type), x, y, rows, width, nullptr);
}
int geglu_backward(int type, const void* grad, const void* x, void* grad_x, int64_t rows,
                   int64_t width) {
  return launch_geglu_backward(static_cast<Type>(type), grad, x, grad_x, rows, width, nullptr);
}
#endif

#ifdef GROUP_NORM_SILU
GroupNormShape shape_of(const int64_t* sizes) {
  return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4] != 0};
}
int64_t group_norm_silu_bytes(int type, const int64_t* sizes) {
  return static_cast<int64_t>(group_norm_silu_scratch(static_cast<Type>(type), shape_of(sizes)));
}
int group_norm_silu(int type, const int64_t* sizes, const void* const* in, double eps, bool silu,
                    void* const* out, void* scratch) {
  return launch_group_norm_silu({static_cast<Type>(type), shape_of(sizes), in[0], in[1], in[2], eps,
                                 silu, out[0], out[1], out[2], scratch},
                                nullptr);
}
int group_norm_silu_backward(int type, const int64_t* sizes, const void* const* in, bool silu,
                             void* const* out, void* scratch) {
  return launch_group_norm_silu_backward(
      {static_cast<Type>(type), shape_of(sizes), in[0], in[1], in[2], in[3], in[4], in[5], silu,
       out[0], out[1], out[2], scratch},
      nullptr);
}
#endif

#ifdef ASYMMETRIC_LOSS
int64_t blocks(int64_t count) { return asymmetric_loss_blocks(count); }
int asymmetric_loss(int type, const void* logits, const void* target, int64_t count,
                    const double* loss, void* values, void* partial) {
  return launch_asymmetric_loss({static_cast<Type>(type), logits, TargetType::kByte, target, count},
                                {loss[0], loss[1], loss[2], loss[3]}, values, partial, nullptr);
}
int asymmetric_loss_backward(int type, const void* logits, const void* target, int64_t count,
                             const double* loss, bool full_grad, const void* grad, bool one,
                             void* to) {
  return launch_asymmetric_loss_backward(
      {static_cast<Type>(type), logits, TargetType::kByte, target, count},
      {loss[0], loss[1], loss[2], loss[3]}, full_grad, grad, one, to, nullptr);
}
#endif

#ifdef DEFORMABLE_ATTENTION
DeformableSizes sizes_of(const int64_t* s) { return {s[0], s[1], s[2], s[3], s[4], s[5], s[6]}; }
int deformable_attention(int type, const int64_t* sizes, const void* value, const int64_t* shapes,
                         const void* locations, const void* weights, void* out) {
  return launch_deformable_attention(static_cast<Type>(type), sizes_of(sizes), value, shapes,
                                     locations, weights, out, nullptr);
}
int deformable_attention_backward(int type, const int64_t* sizes, const void* const* in,
                                  const int64_t* shapes, void* const* out) {
  return launch_deformable_attention_backward(static_cast<Type>(type), sizes_of(sizes), in[0],
                                              in[1], shapes, in[2], in[3], out[0], out[1], out[2],
                                              nullptr);
}
#endif
}
