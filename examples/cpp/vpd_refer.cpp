// What a sentence refers to in a picture:
//   vpd_refer image.png "the red cube" out.png [--mask mask.png] [--model FOLDER] [--vocabulary
//   FILE]
// out: the picture with the object drawn over; mask: 0 and 255.
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <exception>
#include <iostream>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "core/check.h"
#include "tasks/refer.h"

namespace {

struct Options {
  std::vector<std::string> places;  // image, sentence, out
  std::string mask;
  std::string model = VPD_ZOO "/vpd-mini-refer";
  std::string vocabulary;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    std::string* value = word == "--mask"         ? &options.mask
                         : word == "--model"      ? &options.model
                         : word == "--vocabulary" ? &options.vocabulary
                                                  : nullptr;
    if (value == nullptr) {
      options.places.push_back(word);
    } else {
      VPD_CHECK(++i < argc, word, " needs a value");
      *value = argv[i];
    }
  }
  VPD_CHECK(
      options.places.size() == 3,
      "usage: vpd_refer IMAGE SENTENCE OUT [--mask FILE] [--model FOLDER] [--vocabulary FILE]");
  return options;
}

// Each axis that shrinks is area-averaged, each that grows bilinear, as vpd.images does.
cv::Mat resized(cv::Mat image, int side) {
  const cv::Size low(std::min(side, image.cols), std::min(side, image.rows));
  if (low != image.size()) cv::resize(image, image, low, 0, 0, cv::INTER_AREA);
  if (image.size() != cv::Size(side, side)) {
    cv::resize(image, image, {side, side}, 0, 0, cv::INTER_LINEAR);
  }
  return image;
}

// uint8 BGR -> float [1, 3, H, W] RGB in [-1, 1]
at::Tensor to_network(const cv::Mat& image) {
  cv::Mat rgb;
  cv::cvtColor(image, rgb, cv::COLOR_BGR2RGB);
  const at::Tensor bytes = at::from_blob(rgb.data, {rgb.rows, rgb.cols, 3}, at::kByte);
  return bytes.permute({2, 0, 1}).to(at::kFloat).contiguous().div_(127.5).sub_(1.0).unsqueeze(0);
}

// The mask's inside tinted, its outline drawn.
cv::Mat drawn(const cv::Mat& image, const cv::Mat& mask) {
  const cv::Scalar colour(0, 200, 255);
  cv::Mat tinted = image.clone();
  tinted.setTo(colour, mask);
  cv::addWeighted(image, 0.6, tinted, 0.4, 0, tinted);
  std::vector<std::vector<cv::Point>> outlines;
  cv::findContours(mask, outlines, cv::RETR_EXTERNAL, cv::CHAIN_APPROX_NONE);
  cv::drawContours(tinted, outlines, -1, colour, 1);
  return tinted;
}

void write(const std::string& path, const cv::Mat& image) {
  VPD_CHECK(cv::imwrite(path, image), path, ": expected a file that can be written as a picture");
}

void run(const Options& options) {
  const std::string& path = options.places[0];
  const cv::Mat image = cv::imread(path, cv::IMREAD_COLOR);
  VPD_CHECK(!image.empty(), path, ": expected a picture, got a file that OpenCV cannot read");
  const vpd::tasks::ReferSegmenter model(options.model, VPD_ZOO, options.vocabulary);
  const auto side = static_cast<int>(model.config().image_size);
  const at::Tensor logits = model.logits(to_network(resized(image, side)), {options.places[1]});
  const at::Tensor inside =
      (vpd::tasks::probability(logits, {image.rows, image.cols})[0] > 0.5).to(at::kByte) * 255;
  const at::Tensor bytes = inside.contiguous();
  const cv::Mat mask(image.rows, image.cols, CV_8U, bytes.data_ptr());
  write(options.places[2], drawn(image, mask));
  if (!options.mask.empty()) write(options.mask, mask);
  std::cout << "mask: " << cv::countNonZero(mask) << " of " << mask.total() << " pixels\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
