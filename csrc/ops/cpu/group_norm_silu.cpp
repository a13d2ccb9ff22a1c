// Two passes over x: moments, then normalisation and SiLU at once. Moments are taken about a value
// close to the mean, in float over short stretches and in double beyond, so that large means cost
// no accuracy.
#include "ops/group_norm_silu.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "ops/cpu/group_norm_silu_tiles.h"

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

// Sums about `shift` over some values of one group.
struct Moments {
  double shift = 0, sum = 0, square = 0;
};

template <typename T, typename A>
struct Forward {
  Shape shape;
  const T* x;
  const A* weight;
  const A* bias;
  double eps;
  bool silu;
  T* y;
  A* mean;
  A* rstd;

  struct Statistics {
    double mean, rstd;
  };

  Statistics statistics(double shift, double sum, double square) const {
    const double offset = sum / shape.count();
    const double variance = std::max(square / shape.count() - offset * offset, 0.0);
    return {shift + offset, 1 / std::sqrt(variance + eps)};
  }

  void keep(int64_t image, int64_t group, Statistics s) const {
    mean[image * shape.groups + group] = static_cast<A>(s.mean);
    rstd[image * shape.groups + group] = static_cast<A>(s.rstd);
  }

  // z = (x - centre) * scale + offset, where offset makes up for the rounding of centre.
  void constants(Statistics s, int64_t channel, A& centre, A& scale, A& offset) const {
    centre = static_cast<A>(s.mean);
    scale = static_cast<A>(s.rstd * weight[channel]);
    offset = static_cast<A>(bias[channel] -
                            (s.mean - static_cast<double>(centre)) * (s.rstd * weight[channel]));
  }

  template <bool kByRow>
  void normalise(int64_t start, int64_t rows, int64_t width, Channels<A> channels) const {
    if (silu) {
      run_fastest<NormaliseRows<T, A, kByRow, true>>(x + start, y + start, rows, width, width,
                                                     channels);
    } else {
      run_fastest<NormaliseRows<T, A, kByRow, false>>(x + start, y + start, rows, width, width,
                                                      channels);
    }
  }

  // A value near the mean of each group: the average of a few rows spread over the image.
  void shifts(const T* image, A* shift_by_channel, Moments* moments, A* scratch) const {
    const int64_t rows = std::min<int64_t>(8, shape.pixels), channels = shape.channels;
    std::fill_n(scratch, 3 * channels, A(0));
    run_fastest<MomentRows<T, A>>(image, rows, channels, (shape.pixels / rows) * channels,
                                  static_cast<const A*>(scratch), scratch + channels,
                                  scratch + 2 * channels);
    for (int64_t g = 0; g < shape.groups; ++g) {
      const int64_t first = g * shape.per_group();
      A sum = 0;
      for (int64_t c = first; c < first + shape.per_group(); ++c) {
        sum += scratch[channels + c];
      }
      const A shift = sum / static_cast<A>(rows * shape.per_group());
      std::fill_n(shift_by_channel + first, shape.per_group(), shift);
      moments[g] = {shift, 0, 0};
    }
  }

  void channels_last() const {
    const int64_t channels = shape.channels, parts = parts_per_image(shape);
    std::vector<Moments> moments(shape.batch * parts * shape.groups);
    const auto sums = [&](int64_t image, int64_t part) {
      const T* from = x + image * shape.pixels * channels;
      Moments* own = moments.data() + (image * parts + part) * shape.groups;
      std::vector<A> buffer(4 * channels);
      A* shift = buffer.data() + 3 * channels;
      shifts(from, shift, own, buffer.data());
      for_each_step(Range::part(shape.pixels, part, parts), [&](int64_t row, int64_t rows) {
        A *sum = buffer.data(), *square = sum + channels;
        std::fill_n(sum, 2 * channels, A(0));
        run_fastest<MomentRows<T, A>>(from + row * channels, rows, channels, channels,
                                      static_cast<const A*>(shift), sum, square);
        for (int64_t c = 0, g = 0; g < shape.groups; ++g) {
          for (int64_t i = 0; i < shape.per_group(); ++i, ++c) {
            own[g].sum += sum[c];
            own[g].square += square[c];
          }
        }
      });
    };
    const auto apply = [&](int64_t image, int64_t part) {
      std::vector<A> buffer(3 * channels);
      A *centre = buffer.data(), *scale = centre + channels, *offset = scale + channels;
      for (int64_t g = 0; g < shape.groups; ++g) {
        double sum = 0, square = 0;
        const Moments* first = moments.data() + image * parts * shape.groups + g;
        for (int64_t p = 0; p < parts; ++p) {
          sum += first[p * shape.groups].sum;
          square += first[p * shape.groups].square;
        }
        const Statistics s = statistics(first->shift, sum, square);
        if (part == 0) {
          keep(image, g, s);
        }
        for (int64_t c = g * shape.per_group(); c < (g + 1) * shape.per_group(); ++c) {
          constants(s, c, centre[c], scale[c], offset[c]);
        }
      }
      const Range range = Range::part(shape.pixels, part, parts);
      normalise<false>((image * shape.pixels + range.begin) * channels, range.end - range.begin,
                       channels, {centre, scale, offset});
    };
    run_two_phases(shape, parts, sums, apply);
  }

  void contiguous() const {
    for_each_group(shape, [&](int64_t image, int64_t g) {
      const int64_t first = image * shape.channels + g * shape.per_group();  // channel of the batch
      const Statistics s = group_statistics(x + first * shape.pixels);
      keep(image, g, s);
      const int64_t channels = shape.per_group();
      std::vector<A> buffer(3 * channels);
      A *centre = buffer.data(), *scale = centre + channels, *offset = scale + channels;
      for (int64_t c = 0; c < channels; ++c) {
        constants(s, g * channels + c, centre[c], scale[c], offset[c]);
      }
      normalise<true>(first * shape.pixels, channels, shape.pixels, {centre, scale, offset});
    });
  }

  Statistics group_statistics(const T* from) const {
    const int64_t length = shape.per_group() * shape.pixels;
    const int64_t samples = std::min<int64_t>(kFold, length);
    A shift = 0;
    for (int64_t i = 0; i < samples; ++i) {
      shift += load(from[i * (length / samples)]);
    }
    shift /= static_cast<A>(samples);
    A shifts[kFold], sums[2][kFold];
    std::fill_n(shifts, kFold, shift);
    double sum = 0, square = 0;
    for_each_fold(length, [&](int64_t at, int64_t all_rows, int64_t width) {
      for_each_step({0, all_rows}, [&](int64_t row, int64_t rows) {
        std::fill_n(sums[0], 2 * kFold, A(0));
        run_fastest<MomentRows<T, A>>(from + at + row * kFold, rows, width, kFold,
                                      static_cast<const A*>(shifts), sums[0], sums[1]);
        sum += add_lanes<kFold>(sums[0]);
        square += add_lanes<kFold>(sums[1]);
      });
    });
    return statistics(shift, sum, square);
  }
};

std::tuple<Tensor, Tensor, Tensor> forward_cpu(const Tensor& x_, const Tensor& weight_,
                                               const Tensor& bias_, int64_t groups, double eps,
                                               bool silu) {
  check_group_norm_silu(x_, weight_, bias_, groups, eps);
  const at::MemoryFormat format = x_.suggest_memory_format();
  const at::ScalarType type = at::toOpMathType(x_.scalar_type());
  Tensor y = at::empty(x_.sizes(), x_.options(), format);
  Tensor mean = at::zeros({x_.size(0), groups}, x_.options().dtype(type));
  Tensor rstd = at::zeros_like(mean);
  if (x_.numel() == 0) {
    return {y, mean, rstd};
  }
  const Tensor x = x_.contiguous(format);
  const Tensor weight = weight_.to(type).contiguous(), bias = bias_.to(type).contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, x.scalar_type(), "group_norm_silu", [&] {
        using A = at::opmath_type<scalar_t>;
        const Forward<scalar_t, A> forward{
            .shape = {x.size(0), x.size(1), x.size(2) * x.size(3), groups},
            .x = x.const_data_ptr<scalar_t>(),
            .weight = weight.const_data_ptr<A>(),
            .bias = bias.const_data_ptr<A>(),
            .eps = eps,
            .silu = silu,
            .y = y.mutable_data_ptr<scalar_t>(),
            .mean = mean.mutable_data_ptr<A>(),
            .rstd = rstd.mutable_data_ptr<A>()};
        if (x.is_contiguous(at::MemoryFormat::ChannelsLast)) {
          forward.channels_last();
        } else {
          forward.contiguous();
        }
      });
  return {y, mean, rstd};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) { m.impl("group_norm_silu_forward", forward_cpu); }

}  // namespace vpd::ops::cpu
