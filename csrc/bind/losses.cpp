#include "bind/network.h"
#include "losses/contrastive.h"
#include "losses/cross_entropy.h"
#include "losses/dice.h"
#include "losses/epsilon.h"
#include "losses/mask2former.h"
#include "losses/mask_losses.h"
#include "losses/matching.h"
#include "losses/reconstruction.h"
#include "losses/segmentation.h"
#include "losses/silog.h"

namespace vpd::bind {

static void bind_mask2former(py::module_& module) {
  using Weights = std::array<double, 3>;
  using Draws = std::array<Tensor, 3>;
  using Tensors = std::vector<Tensor>;
  module.def(
      "match",
      [](const Tensor& cost) {
        py::gil_scoped_release release;
        return losses::match(cost);
      },
      py::arg("cost"), "(rows, columns)");
  module.def(
      "mask2former_cost",
      [](const Tensor& logits, const Tensor& masks, const Tensor& labels, const Tensor& targets,
         const Tensor& points, const Weights& weights) {
        py::gil_scoped_release release;
        return losses::mask2former_cost(logits, masks, labels, targets, points,
                                        {weights[0], weights[1], weights[2]});
      },
      py::arg("logits"), py::arg("masks"), py::arg("labels"), py::arg("targets"), py::arg("points"),
      py::arg("weights"));
  module.def(
      "mask2former_loss",
      [](const Tensors& logits, const Tensors& masks, const Tensors& labels, const Tensors& targets,
         const Weights& weights, double no_object, int64_t points, double oversample,
         double uncertain, std::optional<double> num_masks,
         const std::optional<at::Generator>& generator, const std::vector<Draws>& draws) {
        losses::Mask2FormerOptions options{.weights = {weights[0], weights[1], weights[2]},
                                           .no_object = no_object,
                                           .points = points,
                                           .oversample = oversample,
                                           .uncertain = uncertain,
                                           .masks = num_masks,
                                           .generator = generator,
                                           .draws = {}};
        for (const Draws& own : draws) options.draws.push_back({own[0], own[1], own[2]});
        losses::Mask2FormerLoss found = [&] {
          py::gil_scoped_release release;
          return losses::mask2former_loss(logits, masks, labels, targets, options);
        }();
        return std::tuple(found.total, found.cross_entropy, found.mask, found.dice,
                          std::move(found.matches));
      },
      py::arg("logits"), py::arg("masks"), py::arg("labels"), py::arg("targets"),
      py::arg("weights"), py::arg("no_object"), py::arg("points"), py::arg("oversample"),
      py::arg("uncertain"), py::arg("num_masks"), py::arg("generator"), py::arg("draws"),
      "(total, cross-entropy, mask, dice, matches)");
}

void bind_losses(py::module_& module) {
  module.def(
      "weighted_cross_entropy",
      [](const Tensor& logits, const Tensor& target, const std::vector<double>& weight,
         const std::string& reduction) {
        py::gil_scoped_release release;
        return losses::weighted_cross_entropy(logits, target, weight,
                                              losses::parse_reduction(reduction));
      },
      py::arg("logits"), py::arg("target"), py::arg("weight"), py::arg("reduction"));
  module.def(
      "dice_loss",
      [](const Tensor& logits, const Tensor& target, const std::string& reduction) {
        py::gil_scoped_release release;
        return losses::dice_loss(logits, target, losses::parse_reduction(reduction));
      },
      py::arg("logits"), py::arg("target"), py::arg("reduction"));
  module.def(
      "mask_losses",
      [](const Tensor& scores, const Tensor& target, const std::vector<double>& weight) {
        losses::MaskLosses found = [&] {
          py::gil_scoped_release release;
          return losses::mask_losses(scores, target, weight);
        }();
        return std::make_pair(std::move(found.cross_entropy), std::move(found.dice));
      },
      py::arg("scores"), py::arg("target"), py::arg("weight"), "(cross-entropy, Dice), sums");
  module.def(
      "epsilon_loss",
      [](const Tensor& prediction, const Tensor& noise, const Tensor& alpha_bar, double cap,
         const std::string& reduction) {
        py::gil_scoped_release release;
        return losses::epsilon_loss(prediction, noise, alpha_bar, cap,
                                    losses::parse_reduction(reduction));
      },
      py::arg("prediction"), py::arg("noise"), py::arg("alpha_bar"), py::arg("cap"),
      py::arg("reduction"));
  module.def("contrastive_loss", &losses::contrastive_loss, py::arg("image"), py::arg("text"),
             py::arg("scale"), py::call_guard<py::gil_scoped_release>());

  using ClassWeights = std::optional<std::vector<double>>;
  module.def(
      "segmentation_cross_entropy",
      [](const Tensor& logits, const Tensor& target, int64_t ignore_index,
         const std::string& average, const ClassWeights& weight, const std::string& reduction) {
        py::gil_scoped_release release;
        return losses::segmentation_cross_entropy(logits, target, ignore_index,
                                                  losses::parse_average(average), weight,
                                                  losses::parse_reduction(reduction));
      },
      py::arg("logits"), py::arg("target"), py::arg("ignore_index"), py::arg("average"),
      py::arg("weight"), py::arg("reduction"));
  module.def(
      "segmentation_sums",
      [](const Tensor& logits, const Tensor& target, int64_t ignore_index,
         const ClassWeights& weight) {
        const losses::SegmentationSums found = [&] {
          py::gil_scoped_release release;
          return losses::segmentation_sums(logits, target, ignore_index, weight);
        }();
        return std::tuple(found.cross_entropy, found.correct, found.valid);
      },
      py::arg("logits"), py::arg("target"), py::arg("ignore_index"), py::arg("weight"),
      "(cross-entropy, correct pixels, valid pixels), sums");

  module.def(
      "silog_sums",
      [](const Tensor& prediction, const Tensor& target, double min_depth) {
        const losses::SilogSums found = [&] {
          py::gil_scoped_release release;
          return losses::silog_sums(prediction, target, min_depth);
        }();
        return std::tuple(found.n, found.sum, found.squares);
      },
      py::arg("prediction"), py::arg("target"), py::arg("min_depth"), "(n, sum d, sum d^2)");
  module.def(
      "silog_of",
      [](const Tensor& n, const Tensor& sum, const Tensor& squares, double variance_focus) {
        py::gil_scoped_release release;
        return losses::silog_of({n, sum, squares}, variance_focus);
      },
      py::arg("n"), py::arg("sum"), py::arg("squares"), py::arg("variance_focus"));
  module.def("silog_loss", &losses::silog_loss, py::arg("prediction"), py::arg("target"),
             py::arg("variance_focus"), py::arg("min_depth"),
             py::call_guard<py::gil_scoped_release>());

  using losses::ReconstructionLoss;
  py::class_<ReconstructionLoss>(module, "ReconstructionLoss")
      .def_readonly("total", &ReconstructionLoss::total)
      .def_readonly("pixels", &ReconstructionLoss::pixels)
      .def_readonly("edges", &ReconstructionLoss::edges)
      .def_readonly("kl", &ReconstructionLoss::kl);
  module.def("reconstruction_loss", &losses::reconstruction_loss, py::arg("reconstruction"),
             py::arg("image"), py::arg("mean"), py::arg("logvar"), py::arg("kl_weight"),
             py::call_guard<py::gil_scoped_release>());

  bind_mask2former(module);
}

}  // namespace vpd::bind
