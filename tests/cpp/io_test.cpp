// Reading and writing weights from a program without Python.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <system_error>

#include "folder.h"
#include "io/json_fields.h"
#include "io/match.h"
#include "io/safetensors.h"
#include "io/state.h"
#include "io/weights.h"
#include "models/unet.h"

namespace vpd::io {
namespace {

using IoTest = test::FolderTest;
using test::message_of;

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

TEST_F(IoTest, StateGivesNetworksTheirTensors) {
  ParamTable table;
  const Scope root(table);
  root.declare("kernel", {2, 3, 1, 1}, Init::ones());
  root.buffer("steps", {}, Init::zeros(), at::kLong);
  const at::Tensor kernel = at::randn({2, 3, 1, 1}).to(at::kHalf);
  write_safetensors(path("base"), {{"net.kernel", at::zeros({2, 3, 1, 1})},
                                   {"net.steps", at::scalar_tensor(7, at::kLong)},
                                   {"other", at::ones({1})}});
  write_safetensors(path("own"), {{"net.kernel", kernel}, {"net.extra", at::ones({1})}});

  State state(path("base"));
  state.add(path("own"));
  const std::vector<at::Tensor> tensors = state.take(table, "net.");
  EXPECT_TRUE(at::equal(tensors[0], kernel.to(at::kFloat)));  // the later file, widened
  EXPECT_TRUE(tensors[0].is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_EQ(tensors[1].item<int64_t>(), 7);
  EXPECT_EQ(tensors[1].scalar_type(), at::kLong);
  EXPECT_EQ(state.rest(path("own")), std::vector<std::string>{"net.extra"});

  root.declare("more", {1}, Init::ones());
  EXPECT_NE(message_of([&] { state.take(table, "net."); }).find("'net.more', got none"),
            std::string::npos);
  ParamTable other;
  Scope(other).declare("kernel", {4}, Init::ones());
  const std::string message = message_of([&] { state.take(other, "net."); });
  EXPECT_NE(message.find(path("own") + ": 'net.kernel' must be [4], got [2, 3, 1, 1]"),
            std::string::npos)
      << message;
}

TEST_F(IoTest, JsonIsReadAsWritten) {
  const Json json = parse_json(
      R"( {"a": [1, -2.5e1, 0], "b\u00e9\ud83d\ude00": "x\n", "c": null, "d": true, "e": {}} )",
      "file");
  const auto& items = *json.find("a")->get_if<Json::Array>();
  EXPECT_EQ(*items[1].get_if<double>(), -25.0);
  EXPECT_EQ(*json.find("b\u00e9\U0001F600")->get_if<std::string>(), "x\n");
  EXPECT_TRUE(json.find("c")->is_null());
  EXPECT_EQ(*json.find("d")->get_if<bool>(), true);
  EXPECT_EQ(json.find("z"), nullptr);
  EXPECT_EQ(*parse_json("0.598910391330719", "file").get_if<double>(), 0.598910391330719);
  EXPECT_TRUE(std::isnan(*parse_json("NaN", "file").get_if<double>()));
}

TEST_F(IoTest, BadJsonIsRefused) {
  for (const char* text : {"", "{", "[1,]", "01", "1.", ".5", "-", "+1", "1e999", "nul", "\"a",
                           "{\"a\":1,\"a\":2}", "1 2", "\"\\x\"", "'a'", "[1 2]", "{1:2}"}) {
    EXPECT_NE(message_of([&] { parse_json(text, "file"); }).find("file: bad JSON text"),
              std::string::npos)
        << text;
  }
  const std::string deep(100'000, '[');
  EXPECT_NE(message_of([&] { parse_json(deep, "file"); }).find("64 levels"), std::string::npos);
}

TEST_F(IoTest, FieldsAreCheckedByTypeAndName) {
  const Json json =
      parse_json(R"({"n": 3, "x": 0.5, "list": [1, 2], "no": null, "far": 1e300})", "c");
  int64_t n = 0, kept = 5;
  double x = 0;
  std::vector<int64_t> list, none = {1};
  JsonFields fields(json, "c");
  fields("n", n)("x", x)("list", list)("no", none)("missing", kept);
  EXPECT_EQ(n, 3);
  EXPECT_EQ(x, 0.5);
  EXPECT_EQ(list, (std::vector<int64_t>{1, 2}));
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(kept, 5);
  EXPECT_EQ(message_of([&] { fields.finish(); }), "c: the core knows no member 'far'");
  EXPECT_EQ(message_of([&] { fields("far", n); }), "c.far must be an integer");
  EXPECT_EQ(message_of([&] { fields("list", x); }), "c.list must be a number");
  EXPECT_EQ(message_of([&] { fields.object("n"); }), "c.n must be an object");
  fields.finish();
}

}  // namespace
}  // namespace vpd::io
