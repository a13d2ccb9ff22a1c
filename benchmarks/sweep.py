"""A sweep over timesteps at inference: shared work, counted and timed.

    python benchmarks/sweep.py [--quick] [--json] [--only mini|large] [--scenes 50] [--runs 3]

mini: vpd-mini-refer under latent_match at five timesteps, all sentences of some Tabletop scenes, by
``evaluate_timesteps``. How often each part of the model runs; its time against the sum of its own
parts run alone in batches (pixels, autoencoder, noise, text encoder with adapter, U-Net with
decoder, scoring; minima of alternating runs); its metrics against separate evaluations; and its
time against those and against one call per (timestep, sentence).

large: Stable Diffusion v1.5's shape with random weights, float32, 512 px, five timesteps x three
sentences about one image, against one call per (timestep, sentence); masks are compared first.
Needs about 9 GB.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, machine, report

import vpd
from vpd.data import tabletop
from vpd.images import to_network
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.nn import channels_last
from vpd.noise import image_key, latents_under
from vpd.tasks.evaluate import evaluate_refer, under
from vpd.tasks.maps import at_timestep
from vpd.tasks.passes import Passes
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.tasks.refer_scores import Scores
from vpd.tasks.samples import Question, SamplePicture, groups, refer_samples
from vpd.tasks.timesteps import STEPS, evaluate_timesteps
from vpd.tasks.work import counted

BATCH = 16


class Samples(list[SamplePicture]):
    """Pictures at hand as a split."""

    name, split = "benchmark", "none"

    def sentences(self, place: int) -> int:
        return len(self[place].questions)

    def floors(self, limit: int | None) -> dict[str, float]:
        return {}


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


@torch.inference_mode()
def one_by_one(
    model: ReferSegmenter, samples: Samples, noises: Sequence[vpd.NoiseSpec]
) -> list[Scores]:
    """One call per (timestep, sentence)."""
    scores = [Scores() for _ in noises]
    for picture in samples:
        for noise, own in zip(noises, scores, strict=True):
            twin = under(model, noise)
            for question in picture.questions:
                pixels = to_network(picture.image, model.config.image_size)
                found = twin.logits(pixels, twin.encode_text([question.text]))
                own.score([picture], [(0, question)], found[:, 1] - found[:, 0])
    return scores


@torch.inference_mode()
def parts(
    model: ReferSegmenter, samples: Samples, noises: Sequence[vpd.NoiseSpec]
) -> dict[str, float]:
    """Seconds of each part of the sweep, run alone."""
    config, seconds = model.config, {}

    def measure(name: str, run: Callable[[], Any]) -> Any:
        seconds[name], result = timed(run)
        return result

    def batches(values: Sequence[Any]) -> list[Any]:
        return [values[i : i + BATCH] for i in range(0, len(values), BATCH)]

    pixels = measure(
        "pixels", lambda: torch.cat([to_network(p.image, config.image_size) for p in samples])
    )
    posteriors = measure("autoencoder", lambda: [model.vae.encode(x) for x in batches(pixels)])

    def noisy() -> None:
        for x, posterior in zip(batches(pixels), posteriors, strict=True):
            keys = [image_key(row) for row in x]
            for noise in noises:
                latents_under(posterior, noise, config.scale_factor, keys)

    measure("noise", noisy)
    texts = list({q.text: None for picture in samples for q in picture.questions})
    measure("text", lambda: [model.context(model.encode_text(b)) for b in batches(texts)])
    passes = Passes(model, [(noise,) for noise in noises], BATCH)
    pictures = [[samples[place] for place in places] for places in groups(samples, BATCH)]
    grouped = [(group, one) for group in pictures for one in passes(group)]

    def masks() -> list[Tensor]:
        found = []
        for _, one in grouped:
            out = model.attend(one.latents, one.context, one.index, one.timesteps)
            scores = model.decode(out, (config.image_size, config.image_size))
            found.append(scores[:, 1] - scores[:, 0])
        return found

    logits = measure("U-Net and decoder", masks)

    def score() -> None:
        scores = [Scores() for _ in noises]
        for (group, one), found in zip(grouped, logits, strict=True):
            for row, own in zip(one.rows, found, strict=True):
                question = group[row.image].questions[row.question]
                scores[row.protocol].score(group, [(row.image, question)], own[None])

    measure("scoring", score)
    return seconds


def mini(scenes: int, runs: int) -> dict[str, Any]:
    model = vpd.load("vpd-mini-refer")
    samples = Samples(refer_samples(tabletop.load_split("val", limit=scenes)))
    noises = [at_timestep("latent_match", t, model.config.noise) for t in STEPS]
    options = {"batch": BATCH, "progress": False}
    texts = [q.text for picture in samples for q in picture.questions]
    evaluate_timesteps(model, samples, noises, limit=2, **options)  # warm-up
    with counted(model) as work:
        found = evaluate_timesteps(model, samples, noises, **options)

    def separately() -> list[Any]:
        return [evaluate_refer(under(model, noise), samples, **options) for noise in noises]

    seconds: dict[str, list[float]] = {"sweep": [], "parts": [], "separate evaluations": []}
    each: list[dict[str, float]] = []
    for _ in range(runs):
        seconds["sweep"].append(
            timed(lambda: evaluate_timesteps(model, samples, noises, **options))[0]
        )
        each.append(parts(model, samples, noises))
        seconds["parts"].append(sum(each[-1].values()))
        took, separate = timed(separately)
        seconds["separate evaluations"].append(took)
    took, single = timed(lambda: one_by_one(model, samples, noises))
    seconds["one call per row"] = [took]
    best = {name: min(times) for name, times in seconds.items()}
    apart = max(
        abs(one.metrics[name] - other.metrics[name])
        for one, other in zip(found, separate, strict=True)
        for name in other.metrics
    )
    alone = max(
        abs(one.metrics[name] - value)
        for one, other in zip(found, single, strict=True)
        for name, value in other.compute().items()
    )
    stems = len(samples) * len(noises)
    return {
        "config": {"scenes": len(samples), "sentences": len(texts), "timesteps": list(STEPS)},
        "counts": {
            "autoencoder": work.images,
            "text encoder": work.texts,
            "stem": work.stems,
            "U-Net rows": work.rows,
        },
        "seconds": seconds,
        "seconds_of_parts": {name: min(one[name] for one in each) for name in each[0]},
        "separate evaluations / sweep": best["separate evaluations"] / best["sweep"],
        "one call per row / sweep": best["one call per row"] / best["sweep"],
        "largest difference of a metric to one call per row, percent": alone,
        "checks": [
            check("autoencoder runs beyond one per image", work.images - len(samples), 0),
            check("text encodes beyond one per distinct text", work.texts - len(set(texts)), 0),
            check("stem runs beyond one per image and timestep", work.stems - stems, 0),
            check("largest difference of a metric to separate evaluations", apart, 1e-6),
            check("time, sweep / sum of its parts", best["sweep"] / best["parts"], 1.1),
        ],
    }


def build_large(quick: bool) -> ReferSegmenter:
    """Weights of realistic size, made in place."""
    config = ReferConfig()
    if quick:
        config = ReferConfig(
            unet=vpd.UNetConfig(model_channels=64),
            vae=AutoencoderConfig(ch=32),
            text=CLIPTextConfig(num_hidden_layers=2),
            hidden=128,
            image_size=256,
        )
    with torch.device("meta"):
        model = ReferSegmenter(config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.dim() > 1:
            tensor.normal_(0, 0.7 * tensor[0].numel() ** -0.5, generator=generator)
        else:
            tensor.fill_(1 if name.endswith(("weight", "running_var")) else 0)
    return channels_last(model)


def large(quick: bool) -> dict[str, Any]:
    model = build_large(quick)
    draw = np.random.default_rng(0)
    side = model.config.image_size
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    texts = ("the red cup on the left", "a dog behind the fence", "the man in a striped shirt")
    image = draw.integers(0, 255, (side, side, 3), dtype=np.uint8)
    samples = Samples([SamplePicture(image, tuple(Question(text, mask) for text in texts))])
    noises = [at_timestep("latent_match", t, model.config.noise) for t in STEPS]
    masks: list[Tensor] = []
    hook = model.decoder.register_forward_hook(lambda _, __, out: masks.append(out))
    one_by_one(model, samples, noises[:1])  # warm-up
    masks.clear()
    # A run takes minutes: on a machine with other work, processor seconds are the steadier measure.
    seconds, cpu_seconds = {}, {}

    def run(name: str, work: Callable[[], Any]) -> Tensor:
        start = time.process_time()
        seconds[name], _ = timed(work)
        cpu_seconds[name] = time.process_time() - start
        found = torch.cat(masks)
        masks.clear()
        return found

    with counted(model) as shared:
        found = run(
            "sweep",
            lambda: evaluate_timesteps(model, samples, noises, batch=BATCH, progress=False),
        )
    with counted(model) as single:
        want = run("one call per row", lambda: one_by_one(model, samples, noises))
    hook.remove()
    error = float((found - want).abs().max() / want.std())
    ratio = seconds["sweep"] / seconds["one call per row"]
    checks = [check("large: largest difference of scores / their deviation", error, 1e-3)]
    if not quick:
        checks.append(check("large: time, sweep / one call per row (1 / 1.9)", ratio, 1 / 1.9))
    return {
        "config": {"image_size": side, "timesteps": list(STEPS), "sentences": len(texts)},
        "counts": {"sweep": vars(shared), "one call per row": vars(single)},
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "one call per row / sweep": 1 / ratio,
        "checks": checks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="6 scenes; a fifth of the width, 256 px"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=("mini", "large"))
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--runs", type=int)
    args = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    if args.only != "large":
        found["mini"] = mini(
            args.scenes or (6 if args.quick else 50), args.runs or (1 if args.quick else 3)
        )
    if args.only != "mini":
        found["large"] = large(args.quick)
    checks = [line for part in found.values() for line in part.pop("checks")]
    report(
        {
            "benchmark": "sweep",
            "machine": machine(),
            **found,
            "checks": checks,
        },
        args.json,
    )


if __name__ == "__main__":
    main()
