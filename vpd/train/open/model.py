"""The open-vocabulary model that a training starts from, and the names that it learns."""

from __future__ import annotations

import torch

from vpd.models.clip import CLIPConfig
from vpd.models.clip_image import CLIPImageConfig
from vpd.nn import channels_last
from vpd.tasks import store
from vpd.tasks.foundation import FoundationConfig
from vpd.tasks.open_config import OpenPanopticConfig
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.tasks.sources import fill_open_panoptic
from vpd.train.open.config import OpenTrainConfig
from vpd.train.panoptic.options import mask_head_fields
from vpd.vocabulary import Vocabulary, data_vocabulary, usual_set

__all__ = ["build_open", "empty_open", "names_of", "published_names"]


def names_of(
    config: OpenTrainConfig, names: tuple[str, ...], things: tuple[bool, ...]
) -> Vocabulary:
    """What the data set's classes are called.

    Raises:
        OSError: A file that cannot be read.
        ValueError: Names of other classes than the data set's, or held-out ones that it lacks.
    """
    if config.vocabulary is None:
        found = data_vocabulary(config.data.name, names, things, config.by)
    else:
        found = Vocabulary.named(config.vocabulary)
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


def published_names(config: OpenTrainConfig) -> Vocabulary:
    """The same before the data set is there, as it is published; raises as :func:`names_of`."""
    found = Vocabulary.named(config.vocabulary or usual_set(config.data.name, config.by) or "")
    return names_of(config, found.names, found.things)


def build_open(config: OpenTrainConfig, vocabulary: Vocabulary) -> OpenPanopticSegmenter:
    """Pre-trained networks, and fresh parts that train, the same whenever they are built.

    Args:
        config: Of the training.
        vocabulary: What is trained on.

    Raises:
        OSError: Weights that cannot be read.
        ValueError: Weights of something else, or a foundation without CLIP.
    """
    torch.manual_seed(config.seed)
    base = None if config.weights else store.load_foundation(config.foundation)
    parts = _full_size() if base is None else base.config
    model = OpenPanopticSegmenter(_shape(config, parts, vocabulary))
    random = config.unet_init == "random"
    drawn = {k: v.clone() for k, v in model.unet.state_dict().items()} if random else {}
    goes_on = False
    if base is None:
        goes_on = fill_open_panoptic(model, config.weight_files)
    else:
        assert base.clip is not None  # the shape asks for it
        model.vae.load_state_dict(base.vae.state_dict())
        model.unet.load_state_dict(base.unet.state_dict())
        model.clip.load_state_dict(base.clip.state_dict())
        model.empty_states.copy_(base.encode_text([""])[0].detach())
    if random:
        model.unet.load_state_dict(drawn)
    if config.supervision == "labels" and not goes_on:
        with torch.no_grad():
            model.words.get_parameter("null_embed").copy_(model.texts([""]))
    return channels_last(model)


def empty_open(config: OpenTrainConfig, vocabulary: Vocabulary) -> OpenPanopticSegmenter:
    """The same without weights: nothing is read but the foundation's config."""
    parts = _full_size() if config.weights else store.read_config(config.foundation)
    if not isinstance(parts, FoundationConfig):
        raise ValueError(f"{config.foundation} is no foundation, its config is a {type(parts)}")
    return OpenPanopticSegmenter(_shape(config, parts, vocabulary))


def _full_size() -> FoundationConfig:
    """Stable Diffusion v1 and CLIP ViT-L/14 at 336 pixels."""
    return FoundationConfig(clip=CLIPConfig(image=CLIPImageConfig.vit_l14_336()))


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
        image_size=config.side,
        scale_factor=parts.scale_factor,
        token_length=parts.token_length,
        captioner=config.captioner,
        learnable_time_embed=config.learnable_time_embed,
        steps=config.steps,
        projection_dim=config.projection_dim,
        categories=vocabulary.categories,
        things=vocabulary.things,
        supervision=config.supervision,
        clip_branch=config.clip_branch,
        alpha=config.clip_shares[0],
        beta=config.clip_shares[1],
        templates="bare" if config.supervision == "labels" else "single",
        embedding_dim=config.embedding_dim,
        test_size=config.crop,
        **mask_head_fields(config),
    )
