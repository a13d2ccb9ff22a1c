// vpd._C: the only place where the core meets Python. One bind_*.cpp per area.
#include "bind/network.h"
#include "core/memory.h"
#include "core/threads.h"
#include "ops/cpu/cpu_level.h"

namespace vpd::bind {

void bind_adapters(py::module_& module);
void bind_autoencoder(py::module_& module);
void bind_clip_image(py::module_& module);
void bind_clip_text(py::module_& module);
void bind_cluster(py::module_& module);
void bind_daam(py::module_& module);
void bind_diffusion(py::module_& module);
void bind_heads(py::module_& module);
void bind_io(py::module_& module);
void bind_losses(py::module_& module);
void bind_mask2former(py::module_& module);
void bind_mask_clip(py::module_& module);
void bind_metrics(py::module_& module);
void bind_odise(py::module_& module);
void bind_odise_head(py::module_& module);
void bind_panoptic(py::module_& module);
void bind_pixel_classes(py::module_& module);
void bind_refer_decoder(py::module_& module);
void bind_tagging_adapter(py::module_& module);
void bind_text(py::module_& module);
void bind_unet(py::module_& module);
void bind_vit(py::module_& module);

}  // namespace vpd::bind

PYBIND11_MODULE(_C, module) {
  module.doc() = "C++ core of vpd";
  // Before that, a tensor has no Python class and returning one would crash.
  py::module_::import("torch");
  py::enum_<vpd::FreedMemory>(module, "FreedMemory")
      .value("kept", vpd::FreedMemory::kKept)
      .value("returned", vpd::FreedMemory::kReturned);
  module.def("set_freed_memory", &vpd::set_freed_memory, py::arg("policy"));
  module.def("loop_threads", &vpd::loop_threads);
  module.def("cpu_level", [] { return vpd::ops::cpu::name_of(vpd::ops::cpu::cpu_level()); });
  vpd::bind::bind_adapters(module);
  vpd::bind::bind_autoencoder(module);
  vpd::bind::bind_clip_image(module);
  vpd::bind::bind_clip_text(module);
  vpd::bind::bind_cluster(module);
  vpd::bind::bind_daam(module);
  vpd::bind::bind_diffusion(module);
  vpd::bind::bind_heads(module);
  vpd::bind::bind_io(module);
  vpd::bind::bind_losses(module);
  vpd::bind::bind_mask2former(module);
  vpd::bind::bind_mask_clip(module);
  vpd::bind::bind_metrics(module);
  vpd::bind::bind_odise(module);
  vpd::bind::bind_odise_head(module);
  vpd::bind::bind_panoptic(module);
  vpd::bind::bind_pixel_classes(module);
  vpd::bind::bind_refer_decoder(module);
  vpd::bind::bind_tagging_adapter(module);
  vpd::bind::bind_text(module);
  vpd::bind::bind_unet(module);
  vpd::bind::bind_vit(module);
}
