#include "ops/resize_bilinear.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "ops/cpu/simd.h"

namespace vpd::ops {
namespace {
using at::Tensor;
using cpu::load;
using cpu::store;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Along one dimension, what each place of the input has given to places of the output: those of
// input i are terms first[i] ... first[i + 1] - 1.
struct Shares {
  struct Term {
    int64_t to;
    double weight;
  };
  std::vector<int64_t> first;
  std::vector<Term> terms;

  Shares(int64_t in, int64_t out, bool align_corners) {
    std::vector<std::vector<Term>> of(static_cast<size_t>(in));
    const double corners = out > 1 ? static_cast<double>(in - 1) / (out - 1) : 0;
    const double scale = align_corners ? corners : static_cast<double>(in) / out;
    for (int64_t to = 0; to < out; ++to) {
      const double at = align_corners ? scale * to : std::max(0.0, scale * (to + 0.5) - 0.5);
      const int64_t low = std::min(static_cast<int64_t>(at), in - 1);
      const double weight = at - low;
      of[low].push_back({to, low + 1 < in ? 1 - weight : 1});
      if (low + 1 < in && weight > 0) of[low + 1].push_back({to, weight});
    }
    first.push_back(0);
    for (const auto& own : of) {
      terms.insert(terms.end(), own.begin(), own.end());
      first.push_back(static_cast<int64_t>(terms.size()));
    }
  }
};

// Rows of the input's gradient: `lines` of the output's are summed into `sum`, then places along
// it.
template <typename T>
struct GatherRow {
  using A = at::opmath_type<T>;
  static VPD_INLINE void run(const T* grad, T* to, A* sum, const Shares* rows,
                             const Shares* columns, int64_t row, int64_t wide, int64_t narrow,
                             int64_t channels) {
    const int64_t length = wide * channels;
    for (int64_t i = 0; i < length; ++i) sum[i] = 0;
    for (int64_t k = rows->first[row]; k < rows->first[row + 1]; ++k) {
      const T* __restrict from = grad + rows->terms[k].to * length;
      const A weight = static_cast<A>(rows->terms[k].weight);
      A* __restrict into = sum;
      for (int64_t i = 0; i < length; ++i) into[i] += weight * load(from[i]);
    }
    A* __restrict own = sum + length;
    for (int64_t x = 0; x < narrow; ++x) {
      for (int64_t c = 0; c < channels; ++c) own[c] = 0;
      for (int64_t k = columns->first[x]; k < columns->first[x + 1]; ++k) {
        const A* __restrict from = sum + columns->terms[k].to * channels;
        const A weight = static_cast<A>(columns->terms[k].weight);
        for (int64_t c = 0; c < channels; ++c) own[c] += weight * from[c];
      }
      T* __restrict out = to + x * channels;
      for (int64_t c = 0; c < channels; ++c) store(out[c], own[c]);
    }
  }
};

// grad [B, C, H, W] -> [B, C, height, width]
Tensor gathered(const Tensor& grad_, at::IntArrayRef sizes, at::MemoryFormat format,
                bool align_corners) {
  const Tensor grad = grad_.contiguous(format);
  Tensor result = at::empty(sizes, grad.options().memory_format(format));
  if (result.numel() == 0) return result;
  // Channels beside each other are summed together; else each plane is an image of one channel.
  const bool beside = format == at::MemoryFormat::ChannelsLast;
  const int64_t channels = beside ? sizes[1] : 1, images = result.size(0) * sizes[1] / channels;
  const int64_t height = sizes[2], width = sizes[3], tall = grad.size(2), wide = grad.size(3);
  const Shares rows(height, tall, align_corners), columns(width, wide, align_corners);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, grad.scalar_type(), "resize", [&] {
    const scalar_t* from = grad.const_data_ptr<scalar_t>();
    scalar_t* to = result.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, images * height, 1, [&](int64_t begin, int64_t end) {
      std::vector<at::opmath_type<scalar_t>> sum(static_cast<size_t>((wide + 1) * channels));
      for (int64_t line = begin; line < end; ++line) {
        const scalar_t* image = from + line / height * tall * wide * channels;
        cpu::run_fastest<GatherRow<scalar_t>>(image, to + line * width * channels, sum.data(),
                                              &rows, &columns, line % height, wide, width,
                                              channels);
      }
    });
  });
  return result;
}

class ResizeBilinear : public torch::autograd::Function<ResizeBilinear> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, at::IntArrayRef size,
                        bool align_corners) {
    ctx->saved_data["sizes"] = x.sizes();
    ctx->saved_data["channels_last"] = x.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
    ctx->saved_data["align_corners"] = align_corners;
    return at::upsample_bilinear2d(x, size, align_corners);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    VPD_CHECK(!at::GradMode::is_enabled(), "resize_bilinear: second derivatives are not supported");
    const auto format = ctx->saved_data["channels_last"].toBool() ? at::MemoryFormat::ChannelsLast
                                                                  : at::MemoryFormat::Contiguous;
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    return {gathered(grads[0], sizes, format, ctx->saved_data["align_corners"].toBool()), {}, {}};
  }
};

}  // namespace

Tensor resize_bilinear(const Tensor& x, at::IntArrayRef size, bool align_corners) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  if (has_values(x) && x.requires_grad() && at::GradMode::is_enabled()) {
    return ResizeBilinear::apply(x, size, align_corners);
  }
  return at::upsample_bilinear2d(x, size, align_corners);
}

}  // namespace vpd::ops
