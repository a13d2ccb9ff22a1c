"""``vpd maps``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vpd.cli.answer import Answer
from vpd.cli.clusters import OWNERS, clusters_answer
from vpd.cli.models import DEFAULT, DType
from vpd.cli.options import check_options


def maps(
    image: Path,
    text: str = "",
    *,
    out: Path = Path("vpd-out"),
    model: str = DEFAULT,
    weights: list[Path] | None = None,
    token_length: int | None = None,
    strides: list[int] | None = None,
    mode: Literal["words", "tokens"] = "words",
    markers: bool = False,
    overlay: bool = True,
    npy: bool = False,
    steps: list[int] | None = None,
    protocol: str = "latent_match",
    average: bool = False,
    fusion: Literal["mean", "daam"] | None = None,
    shares: bool = False,
    layers: list[str] | None = None,
    head: int | None = None,
    clusters: int | None = None,
    block: list[str] | None = None,
    pca: int | None = None,
    upsample: Literal["nearest", "bilinear"] | None = None,
    seed: int | None = None,
    panoptic: str | None = None,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Draws what each word or token of a sentence attends to in an image, or clusters of features.

    Works from a task model and from a pre-trained diffusion model without any head. Writes
    NAME.maps.png: one row per timestep and stride, one column per word. With clusters,
    NAME.clusters.png instead: the image, k-means clusters of the U-Net's features, and the segments
    of a panoptic model or else the clusters over the image.

    Args:
        image: an image file
        text: a sentence; with clusters what the U-Net is told of the image, nothing by default
        out: folder for the results, made if missing
        model: a shipped model or foundation, or a folder that vpd train or vpd pretrain wrote
        weights: instead of a model: Stable Diffusion v1 (one file or a diffusers folder), with or
            without an official VPD
            referring checkpoint
        token_length: tokens of a sentence, with weights
        strides: on the latent grid; 2 means maps of half its side. Without it 2, or 1, the finest,
            for daam
        mode: words (the tokens of a word averaged) or tokens (each for itself)
        markers: maps of the start, the end and the padding too
        overlay: over the image in grey; otherwise the bare maps
        npy: also write each map array, [words or tokens, h, w], as NAME.maps-sSTRIDE-tSTEP.npy, or
            the arrays of clusters as NAME.clusters.npz
        steps: timesteps of the noise, one row each, or features of all of them for the clusters;
            without them the model's own protocol is used
        protocol: where that noise goes and what the U-Net is told
        average: one row, averaged over the steps
        fusion: mean (the layers of a stride averaged) or daam (all layers fused on the finest
            grid); the model's own by default
        shares: each token's share among those of the sentence, at every pixel
        layers: exactly these cross-attention layers instead of the average over all
        head: one attention head instead of the average over all
        clusters: draw so many clusters of features instead of attention
        block: of clusters: the U-Net's blocks whose input they are of (8 is output_blocks.8) or,
            with :output, whose output; the last decoder block before the finest grid by default
        pca: of clusters: so many principal components of the features
        upsample: of clusters: from their grid to the image; nearest by default
        seed: of clusters: of the places where k-means starts; 0 by default
        panoptic: of clusters: a panoptic model whose segments stand beside them
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.cli.models import dense_model, foundation_or_refer
    from vpd.tasks.maps import at_timestep, attention_maps, own_fusion, own_noise
    from vpd.viz import maps_figure

    given: dict[str, Any] = {
        "block": block, "pca": pca, "upsample": upsample, "seed": seed, "panoptic": panoptic,
        "strides": strides, "mode": mode if mode != "words" else None, "markers": markers or None,
        "overlay": overlay and None, "average": average or None, "fusion": fusion,
        "shares": shares or None, "layers": layers, "head": head,
    }  # fmt: skip
    what = "attention" if clusters is None else "clusters"
    check_options(what, given, OWNERS, "what is drawn")
    network = foundation_or_refer(model, weights, device, dtype, token_length)
    own = own_noise(network)
    noises = None if steps is None else [at_timestep(protocol, t, own) for t in steps]
    if clusters is not None:
        segmenter = panoptic and dense_model("panoptic", panoptic, device, dtype)
        return clusters_answer(network, image, text, clusters, noises, given, segmenter, out, npy)
    if average and noises is None:
        raise ValueError("average is over steps, got none")
    fusion = fusion or own_fusion(network)
    specs: list[Any] = [None] if noises is None else [*noises]
    if average:
        specs = [specs]
    found = [
        attention_maps(
            network,
            image,
            text,
            strides=strides or ([1] if fusion == "daam" else [2]),
            mode=mode,
            markers=markers,
            noise=spec,
            fusion=fusion,
            shares=shares,
            layers=layers,
            head=head,
        )
        for spec in specs
    ]
    files = [maps_figure(found, overlay=overlay).save(out / f"{image.stem}.maps.png")]
    if npy:
        files += _write_arrays(found, out, image.stem)
    rows = [
        {
            "noise": one.noise.to_dict(),
            "averaged_with": [noise.to_dict() for noise in one.others],
            "shapes": {str(stride): list(array.shape) for stride, array in one.maps.items()},
        }
        for one in found
    ]
    data: dict[str, Any] = {
        "image": str(image),
        "text": text,
        "labels": list(found[0].labels),
        "maps": rows,
        "files": [str(file) for file in files],
    }
    return Answer(data, "\n".join(f"wrote {file}" for file in files))


def _write_arrays(found: list[Any], out: Path, stem: str) -> list[Path]:
    import numpy as np

    from vpd.data.files import atomic_write

    files = []
    for one in found:
        every = (one.noise, *one.others)
        step = "+".join(str(n.noise_t if n.adds_noise else n.timestep) for n in every)
        for stride, array in one.maps.items():
            files.append(out / f"{stem}.maps-s{stride}-t{step}.npy")
            with atomic_write(files[-1]) as file:
                np.save(file, array)
    return files
