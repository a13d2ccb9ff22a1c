"""Trained cells of a sweep scored under other conditions than they were trained in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vpd.protocol import NoiseSpec
from vpd.tasks.evaluate import under
from vpd.tasks.maps import at_timestep
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.timesteps import evaluate_timesteps

__all__ = ["Inference", "evaluate_under"]


@dataclass(frozen=True)
class Inference:
    """What is changed in a trained model before it is scored; None leaves a field as trained."""

    protocol: str | None = None
    """Named noise protocol (:meth:`vpd.NoiseSpec.preset`)."""
    t: int = 0
    """Its timestep, 0 to 999."""
    image_norm: Literal["half", "none"] | None = None
    text_adapter: bool | None = None

    def __post_init__(self) -> None:
        NoiseSpec.check(self.protocol, self.t)

    def of(self, trained: ReferSegmenter) -> ReferSegmenter:
        """The model so changed; shares its weights."""
        noise = None
        if self.protocol is not None:
            noise = at_timestep(self.protocol, self.t, trained.config.noise)
        return under(trained, noise, image_norm=self.image_norm, text_adapter=self.text_adapter)


def evaluate_under(
    model: ReferSegmenter,
    samples: Any,
    conditions: Mapping[str, Inference],
    **options: Any,
) -> dict[str, dict[str, float]]:
    """Metrics of a model under each condition. Those that differ in noise alone share encodes.

    Args:
        options: Of :func:`vpd.tasks.timesteps.evaluate_timesteps`.
    """
    groups: dict[str, dict[str, ReferSegmenter]] = {}
    for name, condition in conditions.items():
        twin = condition.of(model)
        rest = str({k: v for k, v in asdict(twin.config).items() if k != "noise"})
        groups.setdefault(rest, {})[name] = twin
    found: dict[str, dict[str, float]] = {}
    for group in groups.values():
        noises = list(dict.fromkeys(twin.config.noise for twin in group.values()))
        scores = evaluate_timesteps(next(iter(group.values())), samples, noises, **options)
        of = dict(zip(noises, scores, strict=True))
        found |= {name: of[twin.config.noise].metrics for name, twin in group.items()}
    return {name: found[name] for name in conditions}
