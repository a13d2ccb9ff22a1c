#include "models/refer_decoder.h"

#include "bind/network.h"

namespace vpd::bind {

using models::ReferDecoder;
using models::ReferDecoderConfig;

void bind_refer_decoder(py::module_& module) {
  py::class_<ReferDecoder> net(module, "ReferDecoder");
  net.def(py::init([](std::vector<int64_t> dims, int64_t hidden) {
            return std::make_unique<ReferDecoder>(ReferDecoderConfig{std::move(dims), hidden});
          }),
          py::kw_only(), py::arg("dims"), py::arg("hidden"));
  with_table(net);
  net.def(
      "forward",
      [](const ReferDecoder& self, const std::vector<Tensor>& params,
         const std::vector<Tensor>& features, bool training,
         const std::optional<std::pair<std::string, int64_t>>& group) {
        std::optional<ops::ProcessGroup> processes;
        if (group) processes = ops::ProcessGroup{group->first, group->second};
        py::gil_scoped_release release;
        return self.forward(Params(self.table(), params), features, training,
                            processes ? &*processes : nullptr);
      },
      py::arg("params"), py::arg("features"), py::arg("training"), py::arg("group") = py::none());
}

}  // namespace vpd::bind
