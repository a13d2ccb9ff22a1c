"""The editor that a training starts from."""

from __future__ import annotations

from dataclasses import replace

from vpd.tasks import store
from vpd.tasks.editor import Editor, EditorConfig
from vpd.tasks.foundation import Foundation
from vpd.train.edit.config import EditTrainConfig

__all__ = ["build", "empty_editor"]


def build(config: EditTrainConfig) -> Editor:
    """The editor that a run starts from."""
    model = _start(config)
    model.config = _told(model.config, config)
    return model.train()


def _start(config: EditTrainConfig) -> Editor:
    if config.weights:
        from vpd.tasks.sources import build_editor

        return build_editor(config.weight_files, token_length=config.token_length)
    base = store.load(config.foundation)
    if isinstance(base, Foundation):
        return Editor.from_foundation(base)
    if isinstance(base, Editor):
        return base
    raise ValueError(
        "expected a text-to-image model or an editor as foundation, got "
        f"{config.foundation}: a {type(base).__name__}"
    )


def empty_editor(config: EditTrainConfig) -> Editor:
    """The same without its weights: nothing is read but the foundation's config."""
    return Editor(_shape(config))


def _shape(config: EditTrainConfig) -> EditorConfig:
    if config.weights:
        return _told(EditorConfig(), config)
    base = store.read_config(config.foundation)
    if not isinstance(base, EditorConfig):
        channels = base.unet.out_channels + base.vae.embed_dim
        base = EditorConfig(
            replace(base.unet, in_channels=channels), base.vae, base.text,
            token_length=base.token_length,
        )  # fmt: skip
    return _told(base, config)


def _told(own: EditorConfig, config: EditTrainConfig) -> EditorConfig:
    """With what training says about it."""
    text, image = config.guidance or (own.text_guidance, own.image_guidance)
    length = config.token_length or own.token_length
    return replace(own, token_length=length, text_guidance=text, image_guidance=image)
