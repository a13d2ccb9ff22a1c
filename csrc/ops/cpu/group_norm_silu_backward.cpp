// Two passes over grad and x: sums by channel, then the gradient of x. z and SiLU's slope are
// computed again in each pass, which is cheaper than writing and reading them.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/cpu/group_norm_silu_tiles.h"
#include "ops/group_norm_silu.h"

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

template <typename T, typename A>
struct Backward {
  Shape shape;
  const T* grad;
  const T* x;
  const A* weight;
  const A* bias;
  const A* mean;
  const A* rstd;
  bool silu;
  T* grad_x;  // null when not wanted

  template <bool kByRow>
  void write_gradient(int64_t start, int64_t rows, int64_t width, Channels<A> channels,
                      const A* first, const A* second) const {
    const auto write = [&]<bool kSilu>() {
      run_fastest<GradientRows<T, A, kByRow, kSilu>>(grad + start, x + start, grad_x + start, rows,
                                                     width, width, channels, first, second);
    };
    silu ? write.template operator()<true>() : write.template operator()<false>();
  }

  void add_by_column(int64_t start, int64_t rows, int64_t width, Channels<A> channels, A* sum,
                     A* product) const {
    const auto add = [&]<bool kSilu>() {
      run_fastest<GradientSumsByColumn<T, A, kSilu>>(grad + start, x + start, rows, width, width,
                                                     channels, sum, product);
    };
    silu ? add.template operator()<true>() : add.template operator()<false>();
  }

  void add_by_row(int64_t start, int64_t rows, int64_t width, Channels<A> channels, double* sum,
                  double* product) const {
    const auto add = [&]<bool kSilu>() {
      run_fastest<GradientSumsByRow<T, A, kSilu>>(grad + start, x + start, rows, width, width,
                                                  channels, sum, product);
    };
    silu ? add.template operator()<true>() : add.template operator()<false>();
  }

  // The two means of a group that the gradient of x subtracts, from the sums of dz and dz (x -
  // mean) by channel: grad_x = rstd (dz w - mean(dz w) - xhat mean(dz w xhat)), xhat = (x - mean)
  // rstd
  struct Means {
    A first, second;
  };
  Means means(int64_t image, int64_t g, const double* sum, const double* product) const {
    double dz = 0, dz_xhat = 0;
    for (int64_t c = g * shape.per_group(); c < (g + 1) * shape.per_group(); ++c) {
      dz += sum[c] * static_cast<double>(weight[c]);
      dz_xhat += product[c] * static_cast<double>(weight[c]);
    }
    const double r = rstd[image * shape.groups + g];
    return {static_cast<A>(r * dz / shape.count()),
            static_cast<A>(r * r * r * dz_xhat / shape.count())};
  }

  // Sums of dz and dz xhat by image part and channel, [parts of all images, 2, channels].
  std::vector<double> channels_last() const {
    const int64_t channels = shape.channels, parts = parts_per_image(shape);
    std::vector<double> totals(shape.batch * parts * 2 * channels);
    const auto fill_constants = [&](int64_t image, A* centre, A* scale) {
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t group = image * shape.groups + c / shape.per_group();
        centre[c] = mean[group];
        scale[c] = rstd[group] * weight[c];
      }
    };
    const auto sums = [&](int64_t image, int64_t part) {
      std::vector<A> buffer(4 * channels);
      A *centre = buffer.data(), *scale = centre + channels, *sum = scale + channels;
      fill_constants(image, centre, scale);
      double* total = totals.data() + (image * parts + part) * 2 * channels;
      for_each_step(Range::part(shape.pixels, part, parts), [&](int64_t row, int64_t rows) {
        std::fill_n(sum, 2 * channels, A(0));
        add_by_column((image * shape.pixels + row) * channels, rows, channels,
                      {centre, scale, bias}, sum, sum + channels);
        for (int64_t i = 0; i < 2 * channels; ++i) {
          total[i] += sum[i];
        }
      });
    };
    const auto apply = [&](int64_t image, int64_t part) {
      if (grad_x == nullptr) {
        return;
      }
      std::vector<double> total(2 * channels);
      for (int64_t p = 0; p < parts; ++p) {
        for (int64_t i = 0; i < 2 * channels; ++i) {
          total[i] += totals[(image * parts + p) * 2 * channels + i];
        }
      }
      std::vector<A> buffer(4 * channels);
      A *centre = buffer.data(), *scale = centre + channels;
      A *first = scale + channels, *second = first + channels;
      fill_constants(image, centre, scale);
      for (int64_t g = 0; g < shape.groups; ++g) {
        const Means m = means(image, g, total.data(), total.data() + channels);
        std::fill_n(first + g * shape.per_group(), shape.per_group(), m.first);
        std::fill_n(second + g * shape.per_group(), shape.per_group(), m.second);
      }
      const Range range = Range::part(shape.pixels, part, parts);
      write_gradient<false>((image * shape.pixels + range.begin) * channels,
                            range.end - range.begin, channels, {centre, scale, bias}, first,
                            second);
    };
    run_two_phases(shape, parts, sums, apply);
    scale_products(totals, parts);
    return totals;
  }

  std::vector<double> contiguous() const {
    std::vector<double> totals(shape.batch * 2 * shape.channels);
    for_each_group(shape, [&](int64_t image, int64_t g) {
      const int64_t channels = shape.per_group(), first_channel = g * channels;
      const int64_t start = (image * shape.channels + first_channel) * shape.pixels;
      double* sum = totals.data() + image * 2 * shape.channels;
      double* product = sum + shape.channels;
      std::vector<A> buffer(4 * channels);
      A *centre = buffer.data(), *scale = centre + channels;
      A *first = scale + channels, *second = first + channels;
      for (int64_t c = 0; c < channels; ++c) {
        centre[c] = mean[image * shape.groups + g];
        scale[c] = rstd[image * shape.groups + g] * weight[first_channel + c];
      }
      const Channels<A> constants{centre, scale, bias + first_channel};
      add_by_row(start, channels, shape.pixels, constants, sum + first_channel,
                 product + first_channel);
      if (grad_x != nullptr) {
        const Means m = means(image, g, sum, product);
        std::fill_n(first, channels, m.first);
        std::fill_n(second, channels, m.second);
        write_gradient<true>(start, channels, shape.pixels, constants, first, second);
      }
    });
    scale_products(totals, 1);
    return totals;
  }

  // dz (x - mean) -> dz xhat
  void scale_products(std::vector<double>& totals, int64_t parts) const {
    for (int64_t row = 0; row < shape.batch * parts; ++row) {
      double* product = totals.data() + (row * 2 + 1) * shape.channels;
      for (int64_t c = 0; c < shape.channels; ++c) {
        product[c] *= rstd[row / parts * shape.groups + c / shape.per_group()];
      }
    }
  }
};

// Adds up every second row of totals [rows, 2, channels], from `which` on.
Tensor sum_rows(const std::vector<double>& totals, int64_t which, const Tensor& like) {
  const int64_t channels = like.size(0);
  Tensor sum = at::zeros({channels}, like.options().dtype(at::kDouble));
  double* to = sum.mutable_data_ptr<double>();
  for (size_t row = which; row < totals.size() / channels; row += 2) {
    for (int64_t c = 0; c < channels; ++c) {
      to[c] += totals[row * channels + c];
    }
  }
  return sum.to(like.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& grad_, const Tensor& x_,
                                                const Tensor& weight_, const Tensor& bias_,
                                                const Tensor& mean_, const Tensor& rstd_,
                                                int64_t groups, bool silu,
                                                std::array<bool, 3> wanted) {
  check_group_norm_silu_backward(grad_, x_, weight_, bias_, mean_, rstd_, groups);
  const at::MemoryFormat format = x_.suggest_memory_format();
  const at::ScalarType type = at::toOpMathType(x_.scalar_type());
  Tensor grad_x = wanted[0] ? at::empty(x_.sizes(), x_.options(), format) : Tensor();
  std::vector<double> totals;
  if (x_.numel() > 0) {
    const Tensor x = x_.contiguous(format), grad = grad_.to(x_.scalar_type()).contiguous(format);
    const Tensor weight = weight_.to(type).contiguous(), bias = bias_.to(type).contiguous();
    const Tensor mean = mean_.to(type).contiguous(), rstd = rstd_.to(type).contiguous();
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kBFloat16, at::kHalf, x.scalar_type(), "group_norm_silu_backward", [&] {
          using A = at::opmath_type<scalar_t>;
          const Backward<scalar_t, A> backward{
              .shape = {x.size(0), x.size(1), x.size(2) * x.size(3), groups},
              .grad = grad.const_data_ptr<scalar_t>(),
              .x = x.const_data_ptr<scalar_t>(),
              .weight = weight.const_data_ptr<A>(),
              .bias = bias.const_data_ptr<A>(),
              .mean = mean.const_data_ptr<A>(),
              .rstd = rstd.const_data_ptr<A>(),
              .silu = silu,
              .grad_x = wanted[0] ? grad_x.mutable_data_ptr<scalar_t>() : nullptr};
          totals = x.is_contiguous(at::MemoryFormat::ChannelsLast) ? backward.channels_last()
                                                                   : backward.contiguous();
        });
  }
  return {grad_x, wanted[1] ? sum_rows(totals, 1, weight_) : Tensor(),
          wanted[2] ? sum_rows(totals, 0, bias_) : Tensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) { m.impl("group_norm_silu_backward", backward_cpu); }

}  // namespace vpd::ops::cpu
