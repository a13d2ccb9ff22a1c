"""``vpd evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vpd.cli.answer import Answer, plain
from vpd.cli.models import DEFAULT, DType


def evaluate(
    *,
    model: str = DEFAULT,
    weights: list[Path] | None = None,
    token_length: int | None = None,
    data: Literal["tabletop", "refcoco", "refcoco+", "refcocog", "refclef"] = "tabletop",
    root: Path | None = None,
    split: str = "val",
    split_by: str | None = None,
    limit: int | None = None,
    text_blind: bool = False,
    protocol: str | None = None,
    t: int = 0,
    batch: int = 16,
    pictures: int = 0,
    out: Path = Path("vpd-out"),
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Scores a model on every sentence of a data set's split.

    Tabletop needs no files: its scenes are rendered (once, into a cache) when no root is given.
    Scores on it are printed
    beside what guessing reaches, and compare with nothing measured on photographs.

    Args:
        model: a shipped model, or a folder that vpd train wrote
        weights: instead of a model: Stable Diffusion v1 (one file or a diffusers folder) and an
            official VPD referring
            checkpoint
        token_length: tokens of a sentence, with weights
        data: the data set
        root: folder that holds it in the REFER layout
        split: e.g. val, testA
        split_by: maker of the splits (unc, google, umd); the data set's usual one by default
        limit: only the first so many images
        text_blind: also score the same model given the empty sentence
        protocol: a named noise protocol instead of the model's own, e.g. latent_match
        t: timestep of that protocol, 0 to 999
        batch: sentences per pass
        pictures: draw image | attention | mask | truth of the first so many images
        out: folder for them, made if missing
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.cli.models import refer_model
    from vpd.cli.pictures import draw_comparisons
    from vpd.tasks.evaluate import evaluate_refer, under
    from vpd.tasks.maps import at_timestep

    if protocol is None and t:
        raise ValueError("t needs a protocol, e.g. --protocol latent_match")
    samples = _samples(data, root, split, split_by, limit)
    network = refer_model(model, weights, device, dtype, token_length)
    if protocol is not None:
        network = under(network, at_timestep(protocol, t, network.config.noise))
    found = evaluate_refer(network, samples, batch=batch, text_blind=text_blind, limit=limit)
    name = [str(path) for path in weights] if weights else model
    result = found.to_dict()
    result["protocol"] = {"model": name, **result["protocol"]}
    text = f"{name if weights else model} on {found.table()}"
    if pictures > 0:
        drawn = draw_comparisons(network, samples, out, pictures)
        result["pictures"] = [str(path) for path in drawn]
        text += f"\nwrote {len(drawn)} pictures to {out}"
    return Answer(plain(result), text)


def _samples(
    data: str, root: Path | None, split: str, split_by: str | None, limit: int | None
) -> Any:
    if root is not None:
        from vpd.data.refer import ReferDataset

        return ReferDataset(root, data, split_by, split)
    if data != "tabletop":
        raise ValueError(f"{data} is read from disk: give its folder with --root")
    from vpd.data import tabletop

    if split not in tabletop.SPLITS:
        raise ValueError(f"split must be one of {', '.join(tabletop.SPLITS)}, got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    count = tabletop.SPLITS[split].count
    return tabletop.load_split(split, limit=None if limit is None else min(limit, count))
