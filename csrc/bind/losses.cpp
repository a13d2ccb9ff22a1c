#include "bind/network.h"
#include "losses/contrastive.h"
#include "losses/cross_entropy.h"
#include "losses/dice.h"
#include "losses/epsilon.h"
#include "losses/mask_losses.h"
#include "losses/reconstruction.h"

namespace vpd::bind {

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

  using losses::ReconstructionLoss;
  py::class_<ReconstructionLoss>(module, "ReconstructionLoss")
      .def_readonly("total", &ReconstructionLoss::total)
      .def_readonly("pixels", &ReconstructionLoss::pixels)
      .def_readonly("edges", &ReconstructionLoss::edges)
      .def_readonly("kl", &ReconstructionLoss::kl);
  module.def("reconstruction_loss", &losses::reconstruction_loss, py::arg("reconstruction"),
             py::arg("image"), py::arg("mean"), py::arg("logvar"), py::arg("kl_weight"),
             py::call_guard<py::gil_scoped_release>());
}

}  // namespace vpd::bind
