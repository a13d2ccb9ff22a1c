"""The same networks out of other libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


def has_openvino() -> bool:
    """Whether OpenVINO takes part (pip install "vpd[bench]")."""
    return importlib.util.find_spec("openvino") is not None


def openvino(
    module: torch.nn.Module, example: Sequence[Tensor], dtype: torch.dtype
) -> Callable[..., Tensor]:
    """A network in float32, compiled by OpenVINO for inference in ``dtype``, at the shapes of the
    example."""
    import openvino as ov

    with torch.no_grad():
        model = ov.convert_model(
            module, example_input=tuple(example), input=[tuple(t.shape) for t in example]
        )
    compiled = ov.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _HINTS[dtype],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    return lambda *tensors: torch.from_numpy(compiled([t.numpy() for t in tensors])[0])


class PlainUNet(torch.nn.Module):
    """A U-Net of diffusers without options, as converters want it."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, latents: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        return self.net(latents, timestep, context, return_dict=False)[0]


class PlainEncoder(torch.nn.Module):
    """An autoencoder of diffusers from images to the means of latents."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, image: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(image)).chunk(2, dim=1)[0]
