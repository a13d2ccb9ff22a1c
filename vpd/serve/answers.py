"""What the page asks and shows for each task: pictures and words, whatever draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.viz.overlay import RGB, overlay_heat, overlay_mask, shrink

__all__ = ["TASKS", "Field", "Served", "Shown"]

_WORDS = 12  # maps that are shown of a sentence
_NOISIEST = 999
_ANY = "any"
_LEAST_PX = 512  # of the longer side of what is shown, about


@dataclass(frozen=True)
class Field:
    """Something the page asks besides a picture."""

    name: str
    label: str
    kind: str
    """``text``, ``slider``, ``choice`` or ``number``."""
    value: Any
    low: float = 0
    high: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()

    def checked(self, value: Any) -> Any:
        """``value``, which may come from anybody.

        Raises:
            ValueError: Another type, or out of range.
        """
        if self.kind in ("text", "choice"):
            if not isinstance(value, str) or (self.choices and value not in self.choices):
                wanted = f"one of {', '.join(self.choices)}" if self.choices else "a text"
                raise ValueError(f"{self.name} must be {wanted}, got {value!r}")
            return value
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:
            raise ValueError(
                f"{self.name} must be a number in {self.low:g} to {self.high:g}, got {value!r}"
            )
        return value


@dataclass(frozen=True)
class Shown:
    """What the page shows of a prediction; pictures are uint8 [H, W, 3], not larger than a page can
    show."""

    picture: RGB
    """The prediction over the picture."""
    more: tuple[tuple[RGB, str], ...]
    """Others, each with what it is."""
    said: str


class Served:
    """A model behind the page.

    Args:
        name: What the page calls it.
        task: One of :data:`TASKS`.
        model: Of that task.

    Raises:
        ValueError: Another task, such as that of a foundation, which answers nothing.
    """

    def __init__(self, name: str, task: str, model: Any) -> None:
        if task not in TASKS:
            raise ValueError(f"{name}: expected a model of {', '.join(TASKS)}, got one of {task}")
        self.name, self.task, self.model = name, task, model
        self.fields = tuple(_FIELDS[task](model.config))

    def __call__(self, picture: RGB, **asked: Any) -> Shown:
        """Predicts.

        Args:
            picture: uint8 [H, W, 3].
            asked: What the page's fields hold, by their names; the field's own value where one is
                left out.

        Raises:
            ValueError: No such field, a value that it does not take, or what the model's call
                raises.
        """
        known = [field.name for field in self.fields]
        unknown = set(asked) - set(known)
        if unknown:
            raise ValueError(f"{self.name}: expected {', '.join(known)}, got {min(unknown)}")
        values = {field.name: field.checked(asked.get(field.name, field.value))
                  for field in self.fields}  # fmt: skip
        return TASKS[self.task](self.model, picture, **values)


def _timestep(config: Any) -> list[Field]:
    if getattr(config, "vit", None) is not None:
        return []
    label = "timestep of noise on the latents (0: the model's own protocol)"
    return [Field("timestep", label, "slider", 0, 0, _NOISIEST)]


def _told(config: Any) -> list[Field]:
    by_tags = config.condition == "tagging" and config.tag_source == "tags"
    if config.condition != "caption" and not by_tags:
        return []
    label = "tags, with | between them" if by_tags else "caption"
    return [Field("text", label, "text", "")]


def _refer_fields(config: Any) -> list[Field]:
    return [Field("text", "sentence", "text", ""), *_timestep(config)]


def _dense_fields(config: Any) -> list[Field]:
    return [*_told(config), *_timestep(config)]


def _open_fields(config: Any) -> list[Field]:
    label = "vocabulary: categories with ; between them, names of one with commas"
    return [Field("text", label, "text", "")]


def _depth_fields(config: Any) -> list[Field]:
    scenes = (_ANY, *config.scenes)
    return [Field("scene", "type of scene", "choice", _ANY, choices=scenes), *_timestep(config)]


def _edit_fields(own: Any) -> list[Field]:
    return [
        Field("text", "instruction", "text", ""),
        Field("steps", "steps", "slider", 50, 1, 100),
        Field(
            "text_guidance", "guidance by the instruction", "slider", own.text_guidance, 1, 20, 0.1
        ),
        Field("image_guidance", "guidance by the picture", "slider", own.image_guidance, 1, 5, 0.1),
        Field("seed", "seed", "number", 0, 0, 2**31 - 1),
    ]


def _under(model: Any, timestep: float) -> Any:
    """The model under noise of a timestep; at 0 as it is."""
    from vpd.tasks.evaluation import under
    from vpd.tasks.maps import at_timestep

    step = int(timestep)
    return under(model, at_timestep("latent_match", step, model.config.noise)) if step else model


def _refer(model: Any, picture: RGB, *, text: str, timestep: float) -> Shown:
    from vpd.viz.figures import confidence_map

    result = _under(model, timestep)(picture, text)
    image, mask = _seen(result.image), _seen(result.mask)
    more = [
        (_grey(mask), "mask"),
        (confidence_map(_seen(result.probability)), "probability"),
    ]
    if result.attention.strides:
        maps = zip(result.attention.words, result.attention.finest, strict=True)
        more += [(overlay_heat(image, map_), f"“{word}”") for word, map_ in maps]
    said = (
        f"{result.mask.mean():.1%} of the picture, "
        f"{float(result.probability.max()):.0%} sure where it is surest"
    )
    if result.truncated:
        said += "; the sentence is longer than the model reads, its end was left out"
    return Shown(overlay_mask(image, mask), tuple(more[: 2 + _WORDS]), said)


def _words(model: Any, text: str) -> dict[str, Any]:
    from vpd.cli.predict import words_said

    return {"words": words_said(text, model.config.condition)} if text.strip() else {}


def _semantic(model: Any, picture: RGB, *, text: str = "", timestep: float = 0) -> Shown:
    from vpd.viz.dense import blend, class_colors
    from vpd.viz.figures import confidence_map

    result = _under(model, timestep)(picture, **_words(model, text))
    colors = class_colors(result.classes, len(result.names))
    shares = list(result.shares.items())
    more = [(_grey(_seen(result.mask(name))), name) for name, _ in shares[:_WORDS]]
    more.append((confidence_map(_seen(result.probability)), "probability"))
    said = ", ".join(f"{name} {share:.1%}" for name, share in shares)
    return Shown(_seen(blend(result.image, colors)), tuple(more), said)


def _panoptic(model: Any, picture: RGB, *, text: str = "", timestep: float = 0) -> Shown:
    return _segments(_under(model, timestep)(picture, **_words(model, text)))


def _open_panoptic(model: Any, picture: RGB, *, text: str = "") -> Shown:
    from vpd.vocabulary import Vocabulary

    return _segments(model.panoptic(picture, Vocabulary.parse(text) if text.strip() else None))


def _segments(result: Any) -> Shown:
    from vpd.viz.panoptic import panoptic_overlay

    names = [result.names[own.category] for own in result.segments]
    areas = result.label.areas()
    order = sorted(range(len(names)), key=lambda i: -areas[i])
    more = [
        (_grey(_seen(result.mask(result.segments[i].id))), names[i]) for i in order[: 2 * _WORDS]
    ]
    pixels = max(1, int(result.ids.size))
    said = ", ".join(
        f"{names[i]} {areas[i] / pixels:.1%} ({result.segments[i].score:.2f})" for i in order
    )
    return Shown(_seen(panoptic_overlay(result)), tuple(more), said or "no segment")


def _depth(model: Any, picture: RGB, *, scene: str, timestep: float = 0) -> Shown:
    from vpd.viz.dense import depth_colors

    result = _under(model, timestep)(picture, scene=None if scene == _ANY else scene)
    depth_m = _seen(result.depth_m)
    low, high = float(result.depth_m.min()), float(result.depth_m.max())
    said = f"{low:.2f} to {high:.2f} m, {float(result.depth_m.mean()):.2f} m on average"
    return Shown(depth_colors(depth_m, low, high), ((_seen(result.image), "picture"),), said)


def _edit(
    model: Any,
    picture: RGB,
    *,
    text: str,
    steps: float,
    text_guidance: float,
    image_guidance: float,
    seed: float,
) -> Shown:
    if not text.strip():
        raise ValueError("the instruction is empty: say what to change")
    result = model.edit(
        picture, text, steps=int(steps), text_guidance=text_guidance,
        image_guidance=image_guidance, seed=int(seed),
    )  # fmt: skip
    said = f"seed {result.seed}, {int(steps)} steps"
    if result.truncated:
        said += "; the instruction is longer than the model reads, its end was left out"
    return Shown(_seen(result.image), ((_seen(result.before), "before"),), said)


def _seen(picture: NDArray[Any]) -> NDArray[Any]:
    """A picture or map at a size that can be looked at: a small one's pixels become squares."""
    factor = _LEAST_PX // max(picture.shape[:2])
    if factor <= 1:
        return shrink(picture)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _grey(mask: NDArray[np.bool_]) -> RGB:
    """Black and white."""
    return np.repeat(mask.astype(np.uint8)[..., None] * np.uint8(255), 3, axis=2)


TASKS: dict[str, Callable[..., Shown]] = {
    "refer": _refer,
    "semantic": _semantic,
    "panoptic": _panoptic,
    "open-panoptic": _open_panoptic,
    "depth": _depth,
    "edit": _edit,
}
"""What answers, by task."""

_FIELDS: dict[str, Callable[[Any], list[Field]]] = {
    "refer": _refer_fields,
    "semantic": _dense_fields,
    "panoptic": _dense_fields,
    "open-panoptic": _open_fields,
    "depth": _depth_fields,
    "edit": _edit_fields,
}
