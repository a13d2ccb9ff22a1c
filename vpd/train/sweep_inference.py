"""Trained cells of a sweep scored under other conditions than they were trained in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vpd.protocol import NoiseSpec
from vpd.tasks.maps import at_timestep
from vpd.tasks.refer import ReferConfig, ReferSegmenter
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
        if self.protocol is not None:
            NoiseSpec.preset(self.protocol, noise_t=self.t)  # complains about either
        elif self.t:
            raise ValueError("t needs a protocol, e.g. latent_match")

    def of(self, trained: ReferConfig) -> ReferConfig:
        changes: dict[str, Any] = {
            name: value
            for name in ("image_norm", "text_adapter")
            if (value := getattr(self, name)) is not None
        }
        if self.protocol is not None:
            changes["noise"] = at_timestep(self.protocol, self.t, trained.noise)
        return replace(trained, **changes)


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
    groups: dict[str, dict[str, ReferConfig]] = {}
    for name, condition in conditions.items():
        config = condition.of(model.config)
        rest = str({k: v for k, v in asdict(config).items() if k != "noise"})
        groups.setdefault(rest, {})[name] = config
    found: dict[str, dict[str, float]] = {}
    for group in groups.values():
        twin = copy.copy(model)  # shares the weights
        twin.config = next(iter(group.values()))
        noises = list(dict.fromkeys(config.noise for config in group.values()))
        scores = evaluate_timesteps(twin, samples, noises, **options)
        of = dict(zip(noises, scores, strict=True))
        found |= {name: of[config.noise].metrics for name, config in group.items()}
    return {name: found[name] for name in conditions}
