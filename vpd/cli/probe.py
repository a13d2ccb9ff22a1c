"""``vpd probe``."""

from __future__ import annotations

from pathlib import Path

from vpd.cli.answer import Answer, plain
from vpd.cli.models import DType
from vpd.cli.splits import Data


def probe(
    *,
    model: str = "vpd-mini",
    weights: list[Path] | None = None,
    token_length: int | None = None,
    data: Data = "tabletop",
    root: Path | None = None,
    split: str = "val",
    split_by: str | None = None,
    limit: int | None = 100,
    timesteps: list[int] = [0, 5, 100, 200, 500],  # noqa: B006 - never changed
    protocol: str = "latent_match",
    strides: list[int] | None = None,
    batch: int = 16,
    out: Path = Path("vpd-out"),
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Compares what a model sees and finds under noise with the same without noise: cosine
    similarity and relative L2 of latents, features F1 ... F4 and averaged attention maps.

    The reference is the same protocol at timestep 0 without noise. Writes OUT/similarity.jsonl (a
    record each), similarity.md, similarity.cosine.png and similarity.l2.png.

    Args:
        model: a shipped foundation or task model, or a folder that vpd pretrain or vpd train wrote
        weights: instead of a model: Stable Diffusion v1 (one file or a diffusers folder), with or
            without an official VPD
            referring checkpoint
        token_length: tokens of a sentence, with weights
        data: the data set whose pictures and sentences are shown
        root: folder that holds it in the REFER layout; Tabletop needs none
        split: e.g. val, testA
        split_by: maker of the splits (unc, google, umd); the data set's usual one by default
        limit: only the first so many images
        timesteps: of the noise, 0 to 999
        protocol: where that noise goes and what the U-Net is told
        strides: of the attention maps, on the latent grid; a task model's own, else 2 and 4, by
            default
        batch: rows (sentence and timestep) per pass
        out: folder for the results, made if missing
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.cli.models import foundation_or_refer
    from vpd.cli.splits import samples_of
    from vpd.tasks.maps import at_timestep, own_noise
    from vpd.tasks.similarity import similarity

    samples = samples_of(data, root, split, split_by, limit)
    network = foundation_or_refer(model, weights, device, dtype, token_length)
    noises = [at_timestep(protocol, t, own_noise(network)) for t in timesteps]
    found = similarity(network, samples, noises, strides=strides, batch=batch, limit=limit)
    files = found.write(out)
    name = [str(path) for path in weights] if weights else model
    result = found.to_dict() | {"files": files}
    result["protocol"] = {"model": name, **result["protocol"]}
    lines = [f"{name} on {found.protocol['data']} {split}, {protocol}", found.table()]
    return Answer(plain(result), "\n".join(lines + [f"wrote {path}" for path in files]))
