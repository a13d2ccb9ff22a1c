// Reading and writing weights from a program without Python.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <system_error>

#include "io/match.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "models/unet.h"

namespace vpd::io {
namespace {

// A folder of its own for each test, removed afterwards.
class IoTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              ("vpd_io_" + std::to_string(::getpid()) + "_" + info->name());
    std::filesystem::create_directory(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

  std::filesystem::path folder_;
};

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(IoTest, TensorsComeBackAsTheyWent) {
  const NamedTensors tensors = {{"byte", at::arange(5, at::kByte)},
                                {"half", at::randn({2, 3}).to(at::kHalf)},
                                {"strided", at::randn({4, 6}).t()},
                                {"empty", at::zeros({0, 2})},
                                {"truth", at::ones({2}, at::kBool)}};
  write_safetensors(path("a"), tensors, {{"made by", "a \"test\"\n"}});
  const WeightsFile file = read_weights(path("a"));
  EXPECT_EQ(file.format, "safetensors");
  EXPECT_EQ(file.metadata, (Metadata{{"made by", "a \"test\"\n"}}));
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(file.tensors[i].first, tensors[i].first);
    EXPECT_EQ(file.tensors[i].second.scalar_type(), tensors[i].second.scalar_type());
    EXPECT_TRUE(at::equal(file.tensors[i].second, tensors[i].second)) << tensors[i].first;
  }
}

TEST_F(IoTest, ViewsOutliveTheReaderAndTheFile) {
  write_safetensors(path("a"), {{"x", at::arange(4.0)}});
  at::Tensor tensor = read_weights(path("a")).tensors.front().second;
  std::filesystem::remove(path("a"));
  tensor.add_(1.0);
  EXPECT_TRUE(at::equal(tensor, at::arange(1.0, 5.0)));
}

TEST_F(IoTest, DamageIsNamed) {
  write_safetensors(path("a"), {{"x", at::arange(4.0)}});
  std::filesystem::resize_file(path("a"), std::filesystem::file_size(path("a")) - 1);
  const std::string message = message_of([&] { read_weights(path("a")); });
  EXPECT_NE(message.find(path("a")), std::string::npos) << message;
  EXPECT_NE(message.find("truncated"), std::string::npos) << message;
  EXPECT_NE(message_of([&] { read_weights(write("b", "hello")); }).find("got neither"),
            std::string::npos);
  EXPECT_THROW(read_weights(path("none")), std::system_error);
  EXPECT_THROW(write_safetensors(path("none/c"), {}), std::system_error);
}

Entries entries_of(const ParamTable& table, const std::string& prefix) {
  Entries entries;
  for (const ParamSpec& spec : table.specs()) entries.push_back({prefix + spec.name, spec.shape});
  return entries;
}

TEST_F(IoTest, UNetNamesGoToDiffusersAndBack) {
  const models::UNet net({.model_channels = 32,
                          .channel_mult = {1, 2, 2},
                          .num_res_blocks = 1,
                          .attention_resolutions = {2},
                          .num_heads = 2,
                          .context_dim = 16});
  const Entries original = entries_of(net.table(), "");
  Entries diffusers;
  for (const Renaming& row : plan_conversion(original, Naming::kDiffusers, "file")) {
    diffusers.push_back({row.target, row.shape});
  }
  EXPECT_EQ(diffusers.front().name, "time_embedding.linear_1.weight");
  const Match match = match_weights(diffusers, original, "file");
  EXPECT_EQ(match.layout, "diffusers-unet");
  EXPECT_EQ(match.pairs.size(), original.size());
  EXPECT_TRUE(match.missing.empty() && match.unexpected.empty() && match.mismatched.empty());
}

TEST_F(IoTest, ForwardWithLoadedWeights) {
  const models::UNet net({.model_channels = 32,
                          .channel_mult = {1, 2},
                          .num_res_blocks = 1,
                          .attention_resolutions = {1},
                          .num_heads = 2,
                          .context_dim = 16});
  const std::vector<at::Tensor> made = net.table().initialise(at::kCPU, at::kFloat);
  NamedTensors state;
  for (size_t i = 0; i < made.size(); ++i) {
    state.emplace_back("model.diffusion_model." + net.table().specs()[i].name, made[i]);
  }
  write_safetensors(path("sd.safetensors"), state);

  const WeightsFile file = read_weights(path("sd.safetensors"));
  std::map<std::string, at::Tensor> by_name(file.tensors.begin(), file.tensors.end());
  Entries stored;
  for (const auto& [name, tensor] : file.tensors) stored.push_back({name, tensor.sizes().vec()});
  std::map<std::string, std::string> source;
  for (auto& [ours, theirs] : match_weights(stored, entries_of(net.table(), ""), "sd").pairs) {
    source[ours] = theirs;
  }
  std::vector<at::Tensor> loaded;
  for (const ParamSpec& spec : net.table().specs())
    loaded.push_back(by_name.at(source.at(spec.name)));

  const models::UNetInputs inputs = {
      at::randn({1, 4, 8, 8}), at::tensor(1), at::randn({1, 3, 16}), {}, {}, {}};
  models::UNetTaps taps;
  taps.attention = {1};
  const auto expected = net.forward(Params(net.table(), made), inputs, taps);
  const auto got = net.forward(Params(net.table(), loaded), inputs, taps);
  EXPECT_TRUE(at::equal(got.features.front(), expected.features.front()));
}

}  // namespace
}  // namespace vpd::io
