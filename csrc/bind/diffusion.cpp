#include <pybind11/functional.h>

#include "bind/network.h"
#include "diffusion/guidance.h"
#include "diffusion/noise_schedule.h"
#include "diffusion/sampling.h"
#include "diffusion/timestep_embedding.h"

namespace vpd::bind {

using diffusion::Conditions;
using diffusion::Guidance;
using diffusion::NoiseSchedule;
using diffusion::NoiseScheduleConfig;
using diffusion::Sampler;
using diffusion::SamplerConfig;
using diffusion::SamplerStep;

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
      .def("ddim", &NoiseSchedule::ddim, py::arg("x"), py::arg("epsilon"), py::arg("t"),
           py::arg("to"))
      .def(
          "sigma", [](const NoiseSchedule& self, double t) { return self.sigma(t); }, py::arg("t"))
      .def("timestep", &NoiseSchedule::timestep, py::arg("sigma"))
      .def(py::pickle(
          [](const NoiseSchedule& self) {
            const NoiseScheduleConfig& config = self.config();
            return std::tuple(config.num_train_timesteps, config.beta_start, config.beta_end);
          },
          [](const std::tuple<int64_t, double, double>& state) {
            const auto& [timesteps, start, end] = state;
            return NoiseSchedule(NoiseScheduleConfig{timesteps, start, end});
          }));

  py::class_<SamplerStep>(module, "SamplerStep")
      .def_readonly("timestep", &SamplerStep::timestep)
      .def_readonly("signal", &SamplerStep::signal)
      .def_readonly("spread", &SamplerStep::spread)
      .def_readonly("input_scale", &SamplerStep::input_scale)
      .def_readonly("clean", &SamplerStep::clean)
      .def_readonly("direction", &SamplerStep::direction)
      .def_readonly("correction", &SamplerStep::correction)
      .def_readonly("noise", &SamplerStep::noise);
  py::class_<Sampler>(module, "Sampler")
      .def(
          py::init([](const NoiseSchedule& schedule, const std::string& method, int64_t steps,
                      const std::optional<std::string>& spacing, int64_t offset,
                      const std::string& prediction, double eta, const std::string& interpolation) {
            SamplerConfig config{.method = diffusion::method_named(method),
                                 .steps = steps,
                                 .spacing = std::nullopt,
                                 .offset = offset,
                                 .prediction = diffusion::prediction_named(prediction),
                                 .eta = eta,
                                 .interpolation = diffusion::interpolation_named(interpolation)};
            if (spacing) config.spacing = diffusion::spacing_named(*spacing);
            return Sampler(schedule, config);
          }),
          py::arg("schedule"), py::kw_only(), py::arg("method"), py::arg("steps"),
          py::arg("spacing"), py::arg("offset"), py::arg("prediction"), py::arg("eta"),
          py::arg("interpolation"))
      .def("steps", &Sampler::steps)
      .def("initial_scale", &Sampler::initial_scale)
      .def("diffuse", &Sampler::diffuse, py::arg("clean"), py::arg("noise"), py::arg("index"))
      .def(
          "step",
          [](const Sampler& self, int64_t index, const Tensor& x, const Tensor& output,
             const std::optional<Tensor>& noise, const std::optional<Tensor>& previous) {
            const diffusion::StepResult result = self.step(index, x, output, noise, previous);
            return std::pair(result.sample, result.clean);
          },
          py::arg("index"), py::arg("x"), py::arg("output"), py::arg("noise"), py::arg("previous"));
  module.def(
      "sample",
      [](const Sampler& sampler, const Tensor& start, const diffusion::Denoiser& denoise,
         const std::optional<diffusion::StepNoise>& noise,
         const std::optional<diffusion::StepWatcher>& watch, int64_t first) {
        return diffusion::sample(sampler, start, denoise, noise.value_or(nullptr),
                                 watch.value_or(nullptr), first);
      },
      py::arg("sampler"), py::arg("start"), py::arg("denoise"), py::arg("noise"), py::arg("watch"),
      py::arg("first"));
  py::class_<Guidance>(module, "Guidance")
      .def(py::init([](const Tensor& text, const std::optional<Tensor>& empty,
                       const std::optional<Tensor>& image, std::vector<double> text_guidance,
                       double image_guidance) {
             return Guidance(
                 Conditions{text, empty, image, std::move(text_guidance), image_guidance});
           }),
           py::kw_only(), py::arg("text"), py::arg("empty"), py::arg("image"),
           py::arg("text_guidance"), py::arg("image_guidance"))
      .def("context", &Guidance::context)
      .def("image_index", &Guidance::image_index)
      .def("samples", &Guidance::samples)
      .def("has_text", &Guidance::has_text)
      .def("latents", &Guidance::latents, py::arg("x"))
      .def("combine", &Guidance::combine, py::arg("predictions"));
}

}  // namespace vpd::bind
