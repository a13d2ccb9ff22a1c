"""From an image to features: Stable Diffusion v1's encoder and U-Net (true shapes, random
weights), vpd beside diffusers and OpenVINO.

    python benchmarks/features.py [--quick] [--json] [--size 512] [--dtype float32] [--runs 3]

One image of bytes, 77 tokens, no gradient; vpd's networks are frozen and return feature maps and
attention maps, the others the noise they predict. diffusers runs in channels-last; OpenVINO takes
part where it is installed (pip install "vpd[bench]"), in the same precision. Results are compared
first. Times: minima of alternating runs in one process, of the encoder alone and of all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, machine, report, turns
from _peers import PlainEncoder, PlainUNet, has_openvino, openvino
from unet import accuracy, build, inputs, loaded, with_weights

import vpd
from vpd.nn import channels_last

# The most that vpd's time may be of a peer's.
LIMITS = {
    "float32": {"diffusers": 1.0, "openvino": 1.1},
    "bfloat16": {"diffusers": 1.0, "openvino": 1.0},
}

Encode = Callable[[Tensor], Tensor]
Predict = Callable[[Tensor], Tensor]


def diffusers_encoder(quick: bool) -> torch.nn.Module:
    from diffusers import AutoencoderKL

    width = 32 if quick else 128
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )  # fmt: skip
    return with_weights(vae, seed=4)


def contestants(
    args: argparse.Namespace, dtype: torch.dtype
) -> tuple[dict[str, tuple[Encode, Predict]], Tensor]:
    """By name: float32 image in [-1, 1] -> latents -> noise; and the noise that diffusers predicts
    in float32."""
    vae, unet = diffusers_encoder(args.quick), build("diffusers", torch.float32, args.quick)
    ours = vpd.AutoencoderKL(vpd.AutoencoderConfig(ch=32 if args.quick else 128, encode_only=True))
    vpd.load_weights(ours, {k: v for k, v in vae.state_dict().items() if "decoder" not in k})
    net = loaded(unet, args.quick)
    encoder, denoiser = PlainEncoder(vae), PlainUNet(unet)
    image, now = torch.zeros(1, 3, args.size, args.size), torch.tensor(1)
    latents, context = inputs(args.size, torch.float32)
    found: dict[str, tuple[Encode, Predict]] = {}
    if has_openvino():
        encode = openvino(encoder, (image,), dtype)
        predict = openvino(denoiser, (latents, now, context), dtype)
        found["openvino"] = (encode, lambda z: predict(z, now, context))
    with torch.no_grad():
        exact = denoiser(encoder(picture(args.size)), now, context)
    frozen = ours.eval().to(dtype).frozen(), net.to(dtype).frozen()
    peers = channels_last(encoder.to(dtype)), channels_last(denoiser.to(dtype))
    told = context.to(dtype)

    def features(z: Tensor) -> Tensor:
        out = frozen[1](z, 1, told, taps=vpd.Taps(noise=True))
        out.pyramid()
        return out.noise

    def last(x: Tensor) -> Tensor:
        return x.to(dtype).contiguous(memory_format=torch.channels_last)

    found["vpd"] = (lambda x: frozen[0].encode(x.to(dtype)).mode(), features)
    found["diffusers"] = (lambda x: peers[0](last(x)), lambda z: peers[1](z, now, told))
    return found, exact


def picture(size: int) -> Tensor:
    """float32 [1, 3, size, size] in [-1, 1], of bytes."""
    draw = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 16, 16, generator=draw) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return smooth.clamp(0, 255).byte().float() / 127.5 - 1


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the width")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtype", choices=tuple(LIMITS), default="float32")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    runs, exact = contestants(args, getattr(torch, args.dtype))
    errors = {}  # also the warm-up
    for kind, (encode, predict) in runs.items():
        noise = predict(encode(picture(args.size))).float()
        errors[kind] = ((noise - exact).norm() / exact.norm()).item()
    encoder: dict[str, list[float]] = {kind: [] for kind in runs}
    seconds: dict[str, list[float]] = {kind: [] for kind in runs}
    for kind in turns(runs, args.runs):
        encode, predict = runs[kind]
        start = time.perf_counter()
        latents = encode(picture(args.size))
        encoder[kind].append(time.perf_counter() - start)
        predict(latents)
        seconds[kind].append(time.perf_counter() - start)
    checks = [accuracy(args.dtype, errors)]
    for part, times in (("encoder", encoder), ("all", seconds)):
        best = {kind: min(took) for kind, took in times.items()}
        for peer, limit in LIMITS[args.dtype].items():
            if peer in best:
                checks.append(
                    check(f"time of {part}, vpd / {peer}", best["vpd"] / best[peer], limit)
                )
    report(
        {
            "benchmark": "features",
            "title": f"image to features, {args.size} px, {args.dtype}",
            "machine": machine(),
            "config": {name: getattr(args, name) for name in ("size", "dtype", "quick", "runs")},
            "seconds": seconds,
            "encoder_seconds": encoder,
            "relative_error": errors,
            "checks": checks,
        },
        args.json,
    )


if __name__ == "__main__":
    main()
