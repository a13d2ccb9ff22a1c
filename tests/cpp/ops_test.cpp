// The ops from C++, and their inner loops for every instruction set that this processor has.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <string>

#include "ops/cpu/cross_attention_parts.h"
#include "ops/cpu/group_norm_silu_rows.h"
#include "ops/cross_attention.h"
#include "ops/geglu.h"
#include "ops/group_norm_silu.h"

namespace {
using namespace vpd::ops;

TEST(Ops, GroupNormSilu) {
  const at::Tensor x = at::randn({2, 8, 5, 5}), weight = at::randn({8}), bias = at::randn({8});
  const at::Tensor expected = at::silu(at::group_norm(x, 4, weight, bias, 1e-5));
  EXPECT_TRUE(at::allclose(group_norm_silu(x, weight, bias, 4, 1e-5, true), expected, 1e-5, 1e-6));
}

TEST(Ops, GradientWithoutPython) {
  at::Tensor x = at::randn({3, 8}, at::kDouble).requires_grad_();
  geglu(x).sum().backward();
  const at::Tensor again = x.detach().clone().requires_grad_();
  const auto halves = again.chunk(2, -1);
  (halves[0] * at::gelu(halves[1])).sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), again.grad()));
}

TEST(Ops, CrossAttentionMapSumsToOne) {
  const at::Tensor q = at::randn({2, 9, 8}), k = at::randn({2, 5, 8});
  const auto [out, map] = cross_attention(q, k, k, std::nullopt, 2, 0.5, false);
  EXPECT_TRUE(at::allclose(map.sum(1), at::ones({2, 9}), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(out, attention(q, k, k, std::nullopt, 2, 0.5), 1e-4, 1e-5));
}

TEST(Ops, ErrorsAreInvalidArgument) {
  EXPECT_THROW(geglu(at::zeros({3})), std::invalid_argument);
  const at::Tensor x = at::zeros({1, 4, 2, 2}), c = at::zeros({4});
  EXPECT_THROW(group_norm_silu(x, c, c, 3, 1e-5, true), std::invalid_argument);
  const at::Tensor q = at::zeros({1, 4, 6});
  EXPECT_THROW(cross_attention(q, q, q, std::nullopt, 4, 1, false), std::invalid_argument);
  EXPECT_THROW(attention(q, q, q, std::nullopt, 4, 1), std::invalid_argument);
}

// Runs Kernel for one instruction set.
template <template <int kBytes> typename Kernel, typename... Args>
void run_on(const char* level, Args... args) {
  using namespace vpd::ops::cpu;
#if defined(__x86_64__)
  if (std::string(level) == "avx512") {
    return run_avx512<Kernel<64>>(args...);
  }
  if (std::string(level) == "avx2") {
    return run_avx2<Kernel<32>>(args...);
  }
#endif
  run_baseline<Kernel<16>>(args...);
}

class Levels : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
#if defined(__x86_64__)
    const std::string level = GetParam();
    if ((level == "avx512" && !__builtin_cpu_supports("x86-64-v4")) ||
        (level == "avx2" && !__builtin_cpu_supports("x86-64-v3"))) {
      GTEST_SKIP() << "this processor has no " << level;
    }
#endif
  }
};

std::vector<float> numbers(size_t count, float spread = 1) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(count);
  for (float& v : values) {
    v = normal(generator);
  }
  return values;
}

template <int kBytes>
struct Multiply {
  static VPD_INLINE void run(int64_t rows, int64_t width, int64_t depth, cpu::Strided<float> a,
                             const float* b, float* c, bool add) {
    cpu::multiply<float, kBytes>(rows, width, depth, a, b, width, c, width, add);
  }
};

TEST_P(Levels, Multiply) {
  for (const int64_t rows : {1, 5, 13, 32}) {
    for (const int64_t width : {16, 32, 48, 64, 80, 96, 160, 176}) {
      for (const bool transposed : {false, true}) {
        const int64_t depth = 19;
        const auto a = numbers(rows * depth), b = numbers(depth * width);
        auto c = numbers(rows * width);
        std::vector<double> expected(c.begin(), c.end());
        const int64_t row_stride = transposed ? 1 : depth, column_stride = transposed ? rows : 1;
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t k = 0; k < depth; ++k) {
            for (int64_t i = 0; i < width; ++i) {
              expected[r * width + i] +=
                  static_cast<double>(a[r * row_stride + k * column_stride]) * b[k * width + i];
            }
          }
        }
        run_on<Multiply>(GetParam(), rows, width, depth,
                         cpu::Strided<float>{a.data(), row_stride, column_stride}, b.data(),
                         c.data(), true);
        for (size_t i = 0; i < c.size(); ++i) {
          ASSERT_NEAR(c[i], expected[i], 1e-4) << rows << " x " << width << " at " << i;
        }
      }
    }
  }
}

template <int kBytes>
struct Softmax {
  static VPD_INLINE void run(float* scores, int64_t rows, int64_t count, int64_t stride) {
    cpu::softmax_rows<float, kBytes>(scores, rows, count, stride);
  }
};

TEST_P(Levels, Softmax) {
  for (const int64_t count : {1, 4, 7, 16, 24, 77}) {
    const int64_t rows = 3, stride = cpu::padded<float>(count);
    auto scores = numbers(rows * stride, 10);
    const auto original = scores;
    run_on<Softmax>(GetParam(), scores.data(), rows, count, stride);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < count; ++i) {
        sum += std::exp(static_cast<double>(original[r * stride + i]));
      }
      for (int64_t i = 0; i < count; ++i) {
        const double expected = std::exp(static_cast<double>(original[r * stride + i])) / sum;
        ASSERT_NEAR(scores[r * stride + i], expected, 2e-6);
      }
    }
  }
}

// Not in vectors of a given size, so kBytes goes unused.
template <int kBytes>
struct Normalise {
  static VPD_INLINE void run(const float* x, float* y, int64_t width, const float* constants) {
    cpu::NormaliseRows<float, float, false, true>::run(
        x, y, 2, width, width, {constants, constants + width, constants + 2 * width});
  }
};

TEST_P(Levels, NormaliseAndSilu) {
  for (const int64_t width : {1, 7, 16, 77}) {
    const auto x = numbers(2 * width, 20), constants = numbers(3 * width);
    std::vector<float> y(2 * width);
    run_on<Normalise>(GetParam(), x.data(), y.data(), width, constants.data());
    for (int64_t i = 0; i < 2 * width; ++i) {
      const int64_t c = i % width;
      const double z = (static_cast<double>(x[i]) - constants[c]) * constants[width + c] +
                       constants[2 * width + c];
      const double expected = z / (1 + std::exp(-z));
      ASSERT_NEAR(y[i], expected, 2e-6 * (1 + std::abs(z))) << z;
    }
  }
}

template <int kBytes>
struct Normal {
  static VPD_INLINE void run(const float* x, float* distribution, float* density, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      cpu::normal(x[i], distribution[i], density[i]);
    }
  }
};

TEST_P(Levels, NormalDistribution) {
  const auto x = numbers(10000, 4);
  std::vector<float> distribution(x.size()), density(x.size());
  run_on<Normal>(GetParam(), x.data(), distribution.data(), density.data(),
                 static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(distribution[i], 0.5 * std::erfc(-x[i] / std::sqrt(2.0)), 4e-7) << x[i];
    ASSERT_NEAR(density[i], 0.3989422804 * std::exp(-0.5 * x[i] * x[i]), 4e-7) << x[i];
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, Levels, testing::Values("baseline", "avx2", "avx512"));

}  // namespace
