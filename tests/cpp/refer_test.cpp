// A referring segmenter from a folder, without Python.
#include "tasks/refer.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/randn.h>

#include "folder.h"
#include "io/safetensors.h"
#include "io/state.h"

namespace vpd::tasks {
namespace {

constexpr const char* kConfig = R"({"task": "refer", "foundation": null, "card": {}, "config": {
  "unet": {"model_channels": 8, "channel_mult": [1, 2], "num_res_blocks": 1,
           "attention_resolutions": [1, 2], "num_heads": 2, "context_dim": 8, "norm_groups": 4},
  "vae": {"ch": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "norm_groups": 4},
  "text": {"vocab_size": 600, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
           "num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": 514,
           "projection_dim": null},
  "noise": {"noise_space": "none", "embed_t": 1, "latent_scale": 0.5},
  "image_size": 16, "token_length": 6, "hidden": 8, "attention": [1, 2], "map_scale": 6.0
}})";

class ReferTest : public test::FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    write("merges.txt", "l o\n");
  }

  // A folder whose weights fit the config.
  void write_model() const {
    const ReferConfig config = read_refer_model(write("config.json", kConfig)).config;
    io::NamedTensors state;
    const auto add = [&](const std::string& prefix, const ParamTable& table) {
      const std::vector<at::Tensor> tensors = table.initialise(at::kCPU, at::kFloat);
      for (size_t i = 0; i < tensors.size(); ++i) {
        state.emplace_back(prefix + table.specs()[i].name, tensors[i]);
      }
    };
    add("vae.", models::AutoencoderKL(config.vae).table());
    add("text.", models::CLIPTextEncoder(config.text).table());
    add("unet.", models::UNet(config.unet).table());
    add("adapter.", models::TextAdapter(8).table());
    add("decoder.", models::ReferDecoder({{8 + 6, 16 + 6}, 8}).table());
    io::write_safetensors(path("model.safetensors"), state);
  }
};

TEST_F(ReferTest, OneRowForEachSentence) {
  write_model();
  const ReferSegmenter model(folder_.string());
  const at::Tensor image = at::randn({1, 3, 16, 16});
  const at::Tensor both = model.logits(image, {"lo", "a b c d e f"});
  EXPECT_EQ(both.sizes(), (std::vector<int64_t>{2, 2, 16, 16}));
  EXPECT_TRUE(both.isfinite().all().item<bool>());
  EXPECT_TRUE(at::equal(model.logits(image, {"lo"}), model.logits(image, {"LO "})));
  const at::Tensor chance = probability(both, {20, 12});
  EXPECT_EQ(chance.sizes(), (std::vector<int64_t>{2, 20, 12}));
  EXPECT_TRUE(((chance >= 0) & (chance <= 1)).all().item<bool>());
  EXPECT_THROW(model.logits(image, {}), std::invalid_argument);
  EXPECT_THROW(model.logits(image[0], {"lo"}), std::invalid_argument);
}

TEST_F(ReferTest, WhatNeedsPythonIsRefused) {
  const auto message = [&](const std::string& from, const std::string& to) {
    std::string text = kConfig;
    text.replace(text.find(from), from.size(), to);
    return test::message_of([&] { read_refer_model(write("config.json", text)); });
  };
  EXPECT_EQ(message("\"refer\"", "\"refer\""), "no error");
  EXPECT_NE(message("\"refer\"", "\"depth\"").find("task 'refer', got 'depth'"), std::string::npos);
  EXPECT_NE(message("\"none\"", "\"latent\"").find("config.noise.noise_space"), std::string::npos);
  EXPECT_NE(message("\"hidden\": 8", "\"hidden\": 8, \"new\": 1").find("no member 'new'"),
            std::string::npos);
  EXPECT_NE(message("\"hidden\": 8", "\"attn_t_ensemble\": [1, 2]").find("need Python"),
            std::string::npos);
  EXPECT_NE(message("\"hidden\": 8", "\"attn_fusion\": \"max\"").find("'mean' or 'daam'"),
            std::string::npos);
  EXPECT_NE(message("\"image_size\": 16", "\"image_size\": 0").find("positive"), std::string::npos);
}

TEST_F(ReferTest, MissingPartsAreNamed) {
  write_model();
  std::string text = kConfig;
  text.replace(text.find("null"), 4, "\"base\"");
  write("config.json", text);
  const auto message = [&] { return test::message_of([&] { ReferSegmenter(folder_.string()); }); };
  EXPECT_NE(message().find("expected its foundation 'base'"), std::string::npos);
  write("config.json", kConfig);
  std::filesystem::remove(path("merges.txt"));
  EXPECT_NE(message().find("no vocabulary"), std::string::npos);
  write("merges.txt", "l o\n");
  io::write_safetensors(path("model.safetensors"), {{"vae.none", at::randn({1})}});
  EXPECT_NE(message().find("expected a tensor 'vae."), std::string::npos);
}

}  // namespace
}  // namespace vpd::tasks
