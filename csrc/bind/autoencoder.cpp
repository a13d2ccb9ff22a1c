#include "models/autoencoder.h"

#include "bind/network.h"
#include "models/vq_model.h"

namespace vpd::bind {

using models::AutoencoderConfig;
using models::AutoencoderKL;
using models::DiagonalGaussian;
using models::Encoded;
using models::ImageCoderConfig;
using models::Quantised;
using models::VQConfig;
using models::VQModel;

namespace {

void bind_kl(py::module_& module) {
  py::class_<DiagonalGaussian>(module, "DiagonalGaussian")
      .def_property_readonly("mean", &DiagonalGaussian::mean)
      .def_property_readonly("logvar", &DiagonalGaussian::logvar)
      .def_property_readonly("std", &DiagonalGaussian::std)
      .def("sample", &DiagonalGaussian::sample, py::arg("generator") = py::none())
      .def("kl", &DiagonalGaussian::kl);

  py::class_<AutoencoderKL> net(module, "AutoencoderKL");
  net.def(py::init([](int64_t ch, std::vector<int64_t> ch_mult, int64_t num_res_blocks,
                      int64_t z_channels, int64_t embed_dim, int64_t in_channels, int64_t out_ch,
                      int64_t norm_groups, bool mid_attention, bool encode_only) {
            return std::make_unique<AutoencoderKL>(AutoencoderConfig{
                ImageCoderConfig{ch, std::move(ch_mult), num_res_blocks, z_channels, in_channels,
                                 out_ch, norm_groups, mid_attention},
                embed_dim, encode_only});
          }),
          py::kw_only(), py::arg("ch"), py::arg("ch_mult"), py::arg("num_res_blocks"),
          py::arg("z_channels"), py::arg("embed_dim"), py::arg("in_channels"), py::arg("out_ch"),
          py::arg("norm_groups"), py::arg("mid_attention"), py::arg("encode_only"));
  with_table(net);
  net.def("block_names", &AutoencoderKL::block_names);
  net.def(
      "encode",
      [](const AutoencoderKL& self, const std::vector<Tensor>& params, const Tensor& image,
         const std::vector<std::string>& taps) {
        py::gil_scoped_release release;
        Encoded encoded = self.encode(Params(self.table(), params), image, taps);
        return std::pair(std::move(encoded.posterior), std::move(encoded.blocks));
      },
      py::arg("params"), py::arg("image"), py::arg("taps"));
  net.def(
      "decode",
      [](const AutoencoderKL& self, const std::vector<Tensor>& params, const Tensor& z) {
        py::gil_scoped_release release;
        return self.decode(Params(self.table(), params), z);
      },
      py::arg("params"), py::arg("z"));
  net.def(
      "decode_taps",
      [](const AutoencoderKL& self, const std::vector<Tensor>& params, const Tensor& z,
         const std::vector<std::string>& taps) {
        py::gil_scoped_release release;
        return self.decode_taps(Params(self.table(), params), z, taps);
      },
      py::arg("params"), py::arg("z"), py::arg("taps"));
}

void bind_vq(py::module_& module) {
  py::class_<VQModel> net(module, "VQModel");
  net.def(
      py::init([](int64_t ch, std::vector<int64_t> ch_mult, int64_t num_res_blocks,
                  int64_t z_channels, int64_t embed_dim, int64_t n_embed, double beta,
                  int64_t in_channels, int64_t out_ch, int64_t norm_groups, bool mid_attention) {
        return std::make_unique<VQModel>(
            VQConfig{ImageCoderConfig{ch, std::move(ch_mult), num_res_blocks, z_channels,
                                      in_channels, out_ch, norm_groups, mid_attention},
                     embed_dim, n_embed, beta});
      }),
      py::kw_only(), py::arg("ch"), py::arg("ch_mult"), py::arg("num_res_blocks"),
      py::arg("z_channels"), py::arg("embed_dim"), py::arg("n_embed"), py::arg("beta"),
      py::arg("in_channels"), py::arg("out_ch"), py::arg("norm_groups"), py::arg("mid_attention"));
  with_table(net);
  net.def(
      "encode",
      [](const VQModel& self, const std::vector<Tensor>& params, const Tensor& image) {
        py::gil_scoped_release release;
        return self.encode(Params(self.table(), params), image);
      },
      py::arg("params"), py::arg("image"));
  net.def(
      "quantise",
      [](const VQModel& self, const std::vector<Tensor>& params, const Tensor& h) {
        py::gil_scoped_release release;
        Quantised out = self.quantise(Params(self.table(), params), h);
        return std::tuple(out.latent, out.indices, out.loss);
      },
      py::arg("params"), py::arg("h"));
  net.def(
      "decode",
      [](const VQModel& self, const std::vector<Tensor>& params, const Tensor& h,
         bool force_not_quantize) {
        py::gil_scoped_release release;
        return self.decode(Params(self.table(), params), h, force_not_quantize);
      },
      py::arg("params"), py::arg("h"), py::arg("force_not_quantize"));
}

}  // namespace

void bind_autoencoder(py::module_& module) {
  bind_kl(module);
  bind_vq(module);
}

}  // namespace vpd::bind
