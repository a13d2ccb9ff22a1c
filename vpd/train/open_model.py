"""The open-vocabulary model that a training starts from."""

from __future__ import annotations

from pathlib import Path

import torch

from vpd.nn import channels_last
from vpd.tasks import store
from vpd.tasks.foundation import FoundationConfig
from vpd.tasks.open_config import OpenPanopticConfig
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.train.open_config import OpenTrainConfig
from vpd.vocabulary import LABEL_SETS, Vocabulary, label_set

__all__ = ["build_open", "empty_open", "names_of"]


def names_of(
    config: OpenTrainConfig, names: tuple[str, ...], things: tuple[bool, ...]
) -> Vocabulary:
    """What the data set's classes are called.

    Raises:
        OSError: A file that cannot be read.
        ValueError: Names of other classes than the data set's, or held-out ones that it lacks.
    """
    found = Vocabulary(tuple((name,) for name in names), things)
    if config.vocabulary is not None:
        known = config.vocabulary in LABEL_SETS
        found = label_set(config.vocabulary) if known else Vocabulary.read(Path(config.vocabulary))
        if len(found) != len(names) or found.things != things:
            raise ValueError(
                f"vocabulary={config.vocabulary}: expected names of the data set's {len(names)} "
                f"classes ({', '.join(names[:3])}, ...), things where those are, got {found!r}"
            )
    strange = [name for name in config.held_out if name not in found.names]
    if strange:
        raise ValueError(
            f"held_out must be of {', '.join(found.names[:8])}{', ...' * (len(found) > 8)}, got "
            f"{strange[0]!r}"
        )
    if len(config.held_out) >= len(found):
        raise ValueError("held_out: expected categories that are left to train on, got none")
    return found


def build_open(config: OpenTrainConfig, vocabulary: Vocabulary) -> OpenPanopticSegmenter:
    """Pre-trained networks, and fresh parts that train, the same whenever they are built.

    Args:
        config: Of the training.
        vocabulary: What is trained on.

    Raises:
        ValueError: A foundation without CLIP.
    """
    torch.manual_seed(config.seed)
    base = store.load_foundation(config.foundation)
    model = OpenPanopticSegmenter(_shape(config, base.config, vocabulary))
    assert base.clip is not None  # the shape asks for it
    model.vae.load_state_dict(base.vae.state_dict())
    if config.unet_init == "pretrained":
        model.unet.load_state_dict(base.unet.state_dict())
    model.clip.load_state_dict(base.clip.state_dict())
    with torch.no_grad():
        model.empty_states.copy_(base.encode_text([""])[0])
        if config.supervision == "labels":
            empty = model.texts([""])
            model.words.get_parameter("null_embed").copy_(empty)
    return channels_last(model)


def empty_open(config: OpenTrainConfig, vocabulary: Vocabulary) -> OpenPanopticSegmenter:
    """The same without weights: nothing is read but the foundation's config."""
    parts = store.read_config(config.foundation)
    if not isinstance(parts, FoundationConfig):
        raise ValueError(f"{config.foundation} is no foundation, its config is a {type(parts)}")
    return OpenPanopticSegmenter(_shape(config, parts, vocabulary))


def _shape(
    config: OpenTrainConfig, parts: FoundationConfig, vocabulary: Vocabulary
) -> OpenPanopticConfig:
    if parts.clip is None:
        raise ValueError(
            f"an open-vocabulary model needs a foundation with CLIP, got {config.foundation} "
            "without"
        )
    return OpenPanopticConfig(
        unet=parts.unet,
        vae=parts.vae,
        image=parts.clip.image,
        text=parts.clip.text,
        image_size=config.crop,
        scale_factor=parts.scale_factor,
        token_length=parts.token_length,
        captioner=config.captioner,
        learnable_time_embed=config.learnable_time_embed,
        steps=config.steps,
        projection_dim=config.projection_dim,
        norm_groups=config.norm_groups,
        categories=vocabulary.categories,
        things=vocabulary.things,
        supervision=config.supervision,
        clip_branch=config.clip_branch,
        alpha=config.clip_shares[0],
        beta=config.clip_shares[1],
        templates="bare" if config.supervision == "labels" else "single",
        channels=config.channels,
        embedding_dim=config.embedding_dim,
        num_queries=config.num_queries,
        heads=config.heads,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        test_size=config.crop,
        max_size=config.max_size or round(2.5 * config.crop),
        min_score=config.min_score,
        min_overlap=config.min_overlap,
    )
