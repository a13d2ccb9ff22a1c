// Referring segmentation between tensors, for programs that decode pictures themselves:
//   refer_tensors MODEL_FOLDER in.safetensors "the red cube" out.safetensors
// in: "image", float [1, 3, H, W] in [-1, 1]; out: "logits" [1, 2, H, W] and "probability" [H, W].
#include <exception>
#include <iostream>

#include "core/check.h"
#include "io/safetensors.h"
#include "tasks/refer.h"

namespace {

at::Tensor read_tensor(const std::string& path, const std::string& wanted) {
  for (const auto& [name, tensor] :
       vpd::io::read_safetensors(vpd::io::MappedFile::open(path)).tensors) {
    if (name == wanted) return tensor;
  }
  vpd::fail(path, ": expected a tensor '", wanted, "', got none");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: refer_tensors MODEL_FOLDER in.safetensors SENTENCE out.safetensors\n";
    return 2;
  }
  try {
    const vpd::tasks::ReferSegmenter model(argv[1]);
    const at::Tensor image = read_tensor(argv[2], "image");
    const at::Tensor logits = model.logits(image, {argv[3]});
    const at::Tensor probability = vpd::tasks::probability(logits, image.sizes().slice(2))[0];
    vpd::io::write_safetensors(argv[4], {{"logits", logits}, {"probability", probability}});
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
