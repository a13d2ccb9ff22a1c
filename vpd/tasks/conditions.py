"""What the U-Net of a segmenter of classes is told about a picture: six ways (specification of the
tagging adapter, "Harnessing text-to-image diffusion for dense prediction", 2024, table 5).

| condition | context | words about a picture | made by |
| --- | --- | --- | --- |
| ``uncond`` | states of the empty sentence | - | - |
| ``caption`` | states of a caption | the caption | text encoder |
| ``classes`` | one token for each class | - | VPD's text adapter |
| ``implicit`` | states of the empty sentence, moved by the picture | - | ODISE's captioner |
| ``tagging`` | queries that have read tags and picture | its tags, if read | tagging adapter |
| ``oracle`` | one token for each class in the label | names or ids of these classes | - |

The image encoder of ``implicit`` (as in ODISE) and ``tagging`` sees what the autoencoder sees, in
training a crop and in a sliding test a window, squashed to its own size. Words are of the whole
picture: each of its windows is told the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpd.models.adapters import TextAdapter
from vpd.models.clip_image import CLIPImageEncoder, CLIPImageOutput, clip_pixels
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.implicit_captioner import ImplicitCaptioner, ImplicitCaptionerConfig
from vpd.models.tagging_adapter import TaggingAdapter
from vpd.tasks.class_texts import embed_classes, embed_sentences
from vpd.tasks.condition_config import ConditionedConfig
from vpd.tasks.dense import Context
from vpd.tokens import tokenize

__all__ = ["CONDITIONS", "Condition", "States", "Tagging", "Untold", "padded"]

States = tuple[Tensor, Tensor | None]
"""Tokens [B or 1, n, C], and bool [B or 1, n], True = a token; None: all are."""


class Condition:
    """One way. It names what it is made of as parts of the model, whose weights it then uses; a
    model that shares them shares its condition."""

    tokens: int | None
    """Of the U-Net's context; None: it differs."""
    adapts: bool = False
    """Whether the model's ``adapter``, which trains, makes the context."""
    sees: bool = False
    """Whether it needs :meth:`look`."""

    def __init__(self, config: ConditionedConfig) -> None:
        self.config = config
        self.width = config.unet.context_dim

    def attach(self, model: Any) -> None:
        """Registers the parts: ``adapter``, encoders, embeddings."""
        raise NotImplementedError

    def states(self, model: Any, words: Sequence[Any]) -> States:
        """Tokens of what is said about pictures, None where nothing is.

        Raises:
            ValueError: Words that a picture cannot have, or none where there must be some.
        """
        strange = next((word for word in words if word is not None), None)
        if strange is not None:
            raise ValueError(
                f"a model with condition={self.config.condition} takes no words about a picture, "
                f"got {strange!r}"
            )
        return self.constant(model)[None], None

    def constant(self, model: Any) -> Tensor:
        """Those tokens [n, C], where they are the same for all pictures."""
        raise NotImplementedError

    def look(self, model: Any, pixels: Tensor) -> Tensor | None:
        """What the image encoder sees in pictures [B, 3, H, W] in [-1, 1], without gradient."""
        return None

    def context(self, model: Any, states: States, seen: Tensor | None) -> Context:
        """What the U-Net is told.

        Args:
            model: Whose condition it is.
            states: Of :meth:`states`, in the model's dtype.
            seen: Of :meth:`look`.
        """
        return Context(*states)


class Unconditional(Condition):
    def __init__(self, config: ConditionedConfig) -> None:
        super().__init__(config)
        self.tokens = config.token_length

    def attach(self, model: Any) -> None:
        model.register_buffer("empty_states", torch.zeros(self.config.token_length, self.width))

    def constant(self, model: Any) -> Tensor:
        return model.empty_states


class Caption(Condition):
    def __init__(self, config: ConditionedConfig) -> None:
        super().__init__(config)
        self.tokens = config.token_length

    def attach(self, model: Any) -> None:
        model.text = CLIPTextEncoder(self.config.text)

    @torch.no_grad()
    def states(self, model: Any, words: Sequence[Any]) -> States:
        for word in words:
            if not isinstance(word, str | None):
                raise ValueError(f"words must be a caption, got {word!r}")
        tokens = tokenize([word or "" for word in words], length=self.config.token_length)
        return model.text(tokens.ids.to(model.device)).hidden, None


class Classes(Condition):
    def __init__(self, config: ConditionedConfig) -> None:
        super().__init__(config)
        self.tokens = len(config.classes) if config.texts is None else config.texts
        self.adapts = config.text_adapter

    def attach(self, model: Any) -> None:
        model.adapter = TextAdapter(self.width)
        model.register_buffer("class_embeddings", torch.zeros(self.tokens or 0, self.width))

    def constant(self, model: Any) -> Tensor:
        return model.class_embeddings

    def context(self, model: Any, states: States, seen: Tensor | None) -> Context:
        return Context(model.adapted(states[0]), states[1])


class Oracle(Condition):
    """Uses labels; what it finds must never stand among other results as if it were one of them."""

    tokens = None

    def attach(self, model: Any) -> None:
        count = len(self.config.classes)
        model.register_buffer("class_embeddings", torch.zeros(count, self.width))
        model.register_buffer("empty_embedding", torch.zeros(1, self.width))

    def states(self, model: Any, words: Sequence[Any]) -> States:
        rows = [self._ids(word) for word in words]
        table = model.class_embeddings
        return padded([table[ids] if ids else model.empty_embedding for ids in rows])

    def _ids(self, words: Any) -> list[int]:
        names = self.config.classes
        if words is None or isinstance(words, str):
            raise ValueError(
                "a model with condition=oracle is told which classes a picture's label has: words "
                f"must be their names or ids, got {words!r}"
            )
        found = []
        for word in words:
            if word in names:
                found.append(names.index(word))
            elif isinstance(word, str) or not 0 <= int(word) < len(names):
                raise ValueError(f"words: expected some of {', '.join(names)}, got {word!r}")
            else:
                found.append(int(word))
        return sorted(set(found))


class Implicit(Condition):
    adapts = sees = True

    def __init__(self, config: ConditionedConfig) -> None:
        super().__init__(config)
        self.tokens = config.token_length

    def attach(self, model: Any) -> None:
        config = self.config
        assert config.image is not None
        model.adapter = ImplicitCaptioner(
            ImplicitCaptionerConfig(
                dim=self.width,
                image_dim=config.image.projection_dim or 0,
                tokens=config.token_length,
                time_dim=4 * config.unet.model_channels,
                kind=config.captioner,
            )
        )
        model.register_buffer("empty_states", torch.zeros(config.token_length, self.width))
        model.clip = nn.ModuleDict({"image": CLIPImageEncoder(config.image)})

    def constant(self, model: Any) -> Tensor:
        return model.empty_states

    def look(self, model: Any, pixels: Tensor) -> Tensor:
        projected = _look(model.clip["image"], pixels, antialias=False).projected
        assert projected is not None  # the config asks for it
        return projected

    def context(self, model: Any, states: States, seen: Tensor | None) -> Context:
        gated = self.config.captioner == "gated"
        made = model.adapter(seen, states[0] if gated else None)
        return Context(made.context, time_bias=made.time_bias)


class Tagging(Condition):
    adapts = True

    def __init__(self, config: ConditionedConfig) -> None:
        super().__init__(config)
        assert config.tagging is not None
        self.tokens = config.tagging.queries
        self.sees = config.image is not None
        self._by_tags = config.tag_source == "tags"
        self._known: dict[str, Tensor] = {}  # tag -> embedding
        self._version = -1  # of the weights that made them

    def attach(self, model: Any) -> None:
        config = self.config
        model.adapter = TaggingAdapter(config.tagging)
        count = len(config.classes)
        model.register_buffer("class_embeddings", torch.zeros(count, self.width))
        if config.image is not None:
            model.clip = nn.ModuleDict({"image": CLIPImageEncoder(config.image)})
        if self._by_tags:
            model.text = CLIPTextEncoder(config.text)

    def states(self, model: Any, words: Sequence[Any]) -> States:
        if not self._by_tags:
            return super().states(model, words)
        said = [_tags(word) for word in words]
        self._embed(model, {tag for tags in said for tag in tags})
        rows = [torch.stack([self._known[tag] for tag in tags]) for tags in said]
        found, mask = padded(rows)
        return found.to(model.device), None if mask is None else mask.to(model.device)

    def constant(self, model: Any) -> Tensor:
        return model.class_embeddings

    def look(self, model: Any, pixels: Tensor) -> Tensor | None:
        if not self.sees:
            return None
        return _look(model.clip["image"], pixels, antialias=True).hidden

    def context(
        self, model: Any, states: States, seen: Tensor | None, *, attention: bool = False
    ) -> Context:
        text, mask = states
        rows = max(len(text), 1 if seen is None else len(seen))
        made = model.adapter(
            text.expand(rows, -1, -1) if self.config.tag_source != "none" else None,
            seen,
            text_mask=None if mask is None else mask.expand(rows, -1),
            classes=model.class_embeddings,
            attention=attention,
        )
        return Context(made.context, tags=made.logits, attention=made.image_attention)

    def _embed(self, model: Any, tags: set[str]) -> None:
        """Adds the embeddings of tags that are met for the first time."""
        version = sum(parameter._version for parameter in model.text.parameters())
        if version != self._version:
            self._known, self._version = {}, version
        # Also what is first met in inference mode must serve training later.
        with torch.inference_mode(False), torch.autocast(model.device.type, enabled=False):
            if "" in tags and "" not in self._known:
                self._known[""] = embed_sentences(model.text, [""])[0]
            new = sorted(tags - self._known.keys())
            if new:
                self._known |= zip(new, embed_classes(model.text, new, "single"), strict=True)


class Untold(Condition):
    """Of a backbone that takes no text."""

    tokens = 0

    def attach(self, model: Any) -> None:
        """There is nothing to be said with."""

    def constant(self, model: Any) -> Tensor:
        return torch.zeros(0, self.width, device=model.device)

    def context(self, model: Any, states: States, seen: Tensor | None) -> Context:
        if states[0].numel():
            raise ValueError(
                f"a vision transformer is told nothing, got states {list(states[0].shape)}"
            )
        return Context(*states)


CONDITIONS: dict[str, type[Condition]] = {
    "uncond": Unconditional,
    "caption": Caption,
    "classes": Classes,
    "implicit": Implicit,
    "tagging": Tagging,
    "oracle": Oracle,
}


def padded(rows: Sequence[Tensor]) -> States:
    """Tokens [n, C] of each picture, n >= 1, side by side: [B, longest n, C], and which are not
    padding; None where there is none."""
    lengths = [len(row) for row in rows]
    found = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    if min(lengths) == max(lengths):
        return found, None
    counts = torch.tensor(lengths, device=found.device)
    return found, torch.arange(max(lengths), device=found.device) < counts[:, None]


def _tags(words: Any) -> list[str]:
    """Tags, or what a tagger says with its scores, without repetition. Where there is none: "",
    whose token stands for that (specification, section 4)."""
    if isinstance(words, str):
        raise ValueError(f"words must be a list of tags, got {words!r}")
    said = [str(tag if isinstance(tag, str) else tag[0]).strip() for tag in words or ()]
    return list(dict.fromkeys(tag for tag in said if tag)) or [""]


@torch.no_grad()
def _look(encoder: CLIPImageEncoder, pixels: Tensor, *, antialias: bool) -> CLIPImageOutput:
    """Pictures squashed (bicubic) to an encoder's size. CLIP was trained on antialiased ones; ODISE
    resizes tensors, which was not."""
    side = encoder.config.image_size
    if pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(
            pixels.float(), (side, side), mode="bicubic", align_corners=False, antialias=antialias
        )
    return encoder(clip_pixels(pixels))
