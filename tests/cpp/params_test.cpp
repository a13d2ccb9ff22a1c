// The parameter table without Python: names, order, initial values, calls.
#include "core/params.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/unet.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace {

using vpd::Init;
using vpd::Params;
using vpd::ParamTable;
using vpd::Scope;

TEST(ParamTable, NamesAreDottedPathsInTheOrderOfDeclaration) {
  ParamTable table;
  const Scope root(table);
  root.declare("gamma", {3}, Init::constant(1e-4));
  const vpd::nn::Linear linear(root / "blocks" / 2 / "proj", 3, 4);
  const vpd::nn::BatchNorm2d norm(root / "bn", 4);
  std::vector<std::string> names;
  for (const auto& spec : table.specs()) names.push_back(spec.name);
  const std::vector<std::string> expected = {
      "gamma",   "blocks.2.proj.weight", "blocks.2.proj.bias", "bn.weight",
      "bn.bias", "bn.running_mean",      "bn.running_var",     "bn.num_batches_tracked"};
  EXPECT_EQ(names, expected);
  EXPECT_FALSE(table.specs()[3].is_buffer);
  EXPECT_TRUE(table.specs()[5].is_buffer);
}

TEST(ParamTable, InitialValuesFollowTheirDistribution) {
  ParamTable table;
  const Scope root(table);
  root.declare("constant", {2}, Init::constant(0.25));
  root.declare("uniform", {400, 100}, Init::fan_in(100));
  root.declare("normal", {400, 100}, Init::normal(0.02));
  const auto tensors = table.initialise(at::kCPU, at::kDouble);
  EXPECT_TRUE((tensors[0] == 0.25).all().item<bool>());
  EXPECT_LE(tensors[1].abs().max().item<double>(), 0.1);
  EXPECT_NEAR(tensors[1].std().item<double>(), 0.1 / std::sqrt(3.0), 1e-3);
  EXPECT_NEAR(tensors[2].std().item<double>(), 0.02, 5e-4);
}

TEST(ParamTable, RangeIsTheSlotsOfOneBlock) {
  ParamTable table;
  const Scope root(table);
  root.declare("blocks", {1}, Init::ones());
  const vpd::nn::Linear first(root / "blocks" / 1, 3, 4), tenth(root / "blocks" / 10, 3, 4);
  const vpd::SlotRange range = table.range("blocks.1");
  EXPECT_EQ(range.begin, 1u);
  EXPECT_EQ(range.end, 3u);  // "blocks.10.weight" is another block's
  EXPECT_EQ(table.range("none").size(), 0u);
}

TEST(ParamTable, AGeneratorDecidesTheValues) {
  ParamTable table;
  Scope(table).declare("weight", {4, 5}, Init::normal(1));
  const auto draw = [&](uint64_t seed) {
    return table.initialise(at::kCPU, at::kFloat, at::detail::createCPUGenerator(seed)).front();
  };
  EXPECT_TRUE(at::equal(draw(1), draw(1)));
  EXPECT_FALSE(at::equal(draw(1), draw(2)));
  const at::Tensor meta = table.initialise(at::kMeta, at::kHalf).front();
  EXPECT_TRUE(meta.is_meta());
  EXPECT_EQ(meta.scalar_type(), at::kHalf);
}

TEST(Params, TheNumberOfTensorsIsChecked) {
  ParamTable table;
  Scope(table).declare("weight", {2}, Init::ones());
  const std::vector<at::Tensor> none;
  EXPECT_THROW(Params(table, none), std::invalid_argument);
}

TEST(Linear, ComputesFromTheTensorsOfTheCall) {
  ParamTable table;
  const vpd::nn::Linear linear(Scope(table), 3, 2);
  const std::vector<at::Tensor> tensors = {at::ones({2, 3}), at::ones({2})};
  const at::Tensor y = linear(Params(table, tensors), at::ones({5, 3}));
  EXPECT_TRUE(at::allclose(y, at::ones({5, 2}) * 4));
}

TEST(UNet, RunsWithoutPython) {
  const vpd::models::UNet net({.model_channels = 8,
                               .channel_mult = {1, 2},
                               .num_res_blocks = 1,
                               .attention_resolutions = {1, 2},
                               .num_heads = 2,
                               .context_dim = 6,
                               .norm_groups = 4});
  const auto tensors = net.table().initialise(at::kCPU, at::kFloat);
  const auto out = net.forward(Params(net.table(), tensors),
                               {.latents = at::randn({1, 4, 8, 6}),
                                .timesteps = at::ones({}, at::kLong),
                                .context = at::randn({2, 5, 6}),
                                .image_index = {},
                                .context_mask = {},
                                .time_bias = {}},
                               {.noise = true,
                                .attention = {1, 2},
                                .layers = {},
                                .tokens = {},
                                .block_inputs = {},
                                .block_outputs = {}});
  EXPECT_EQ(out.noise->sizes(), (std::vector<int64_t>{2, 4, 8, 6}));
  ASSERT_EQ(out.features.size(), 2u);
  EXPECT_EQ(out.features[1].sizes(), (std::vector<int64_t>{2, 16, 4, 3}));
  const at::Tensor total = out.attention.at(2).sum(1);
  EXPECT_TRUE(at::allclose(total, at::ones_like(total)));
}

}  // namespace
