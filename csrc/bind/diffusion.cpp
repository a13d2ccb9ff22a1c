#include "bind/network.h"
#include "diffusion/noise_schedule.h"
#include "diffusion/timestep_embedding.h"

namespace vpd::bind {

using diffusion::DDIMStep;
using diffusion::NoiseSchedule;
using diffusion::NoiseScheduleConfig;

void bind_diffusion(py::module_& module) {
  module.def("timestep_embedding", &diffusion::timestep_embedding, py::arg("timesteps"),
             py::arg("dim"), "[B] -> [B, dim], float32");
  py::class_<NoiseSchedule>(module, "NoiseSchedule")
      .def(py::init([](int64_t num_train_timesteps, double beta_start, double beta_end) {
             return NoiseSchedule(NoiseScheduleConfig{num_train_timesteps, beta_start, beta_end});
           }),
           py::kw_only(), py::arg("num_train_timesteps"), py::arg("beta_start"),
           py::arg("beta_end"))
      .def("betas", &NoiseSchedule::betas)
      .def("alphas_cumprod", &NoiseSchedule::alphas_cumprod)
      .def("alpha_bar", &NoiseSchedule::alpha_bar, py::arg("t"))
      .def("snr", &NoiseSchedule::snr, py::arg("t"))
      .def("add_noise", &NoiseSchedule::add_noise, py::arg("x0"), py::arg("noise"), py::arg("t"))
      .def("velocity", &NoiseSchedule::velocity, py::arg("x0"), py::arg("noise"), py::arg("t"))
      .def("ddim_timesteps", &NoiseSchedule::ddim_timesteps, py::arg("steps"))
      .def(
          "ddim_step",
          [](const NoiseSchedule& self, const Tensor& x, const Tensor& epsilon, int64_t t,
             int64_t previous, double eta, const std::optional<Tensor>& noise) {
            const DDIMStep step = self.ddim_step(x, epsilon, t, previous, eta, noise);
            return std::pair(step.sample, step.predicted_x0);
          },
          py::arg("x"), py::arg("epsilon"), py::arg("t"), py::arg("previous"), py::arg("eta"),
          py::arg("noise"))
      .def(py::pickle(
          [](const NoiseSchedule& self) {
            const NoiseScheduleConfig& config = self.config();
            return std::tuple(config.num_train_timesteps, config.beta_start, config.beta_end);
          },
          [](const std::tuple<int64_t, double, double>& state) {
            const auto& [timesteps, start, end] = state;
            return NoiseSchedule(NoiseScheduleConfig{timesteps, start, end});
          }));
}

}  // namespace vpd::bind
