"""What `vpd predict` says of a result."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Found", "depth_found", "panoptic_found", "refer_found", "semantic_found"]


class Found(NamedTuple):
    result: Any
    about: dict[str, Any]
    """What --json says of it."""
    said: str
    """The same in words."""
    noise: Any = None
    """A picture of what noise does to it."""


def refer_found(image: Any, text: str, segmenter: Any, noisy: dict[str, Any]) -> Found:
    from vpd.viz import noise_figure

    result = segmenter(image, text)
    drawn = noise_figure({name: one(image, text) for name, one in noisy.items()}) if noisy else None
    about = {
        "mask_pixels": int(result.mask.sum()),
        "pixels": int(result.mask.size),
        "largest_probability": float(result.probability.max()),
        "truncated": result.truncated,
    }
    return Found(result, about, f"{result.mask.mean():.1%} of it", drawn)


def semantic_found(result: Any) -> Found:
    shares = result.shares
    top = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:5])
    return Found(result, {"shares": shares, "pixels": int(result.classes.size)}, top)


def panoptic_found(result: Any) -> Found:
    counts: dict[str, int] = {}
    for segment in result.segments:
        name = result.names[segment.category]
        counts[name] = counts.get(name, 0) + 1
    about = {
        "segments": [
            {"id": own.id, "name": result.names[own.category], "score": own.score, "pixels": area}
            for own, area in zip(result.segments, result.label.areas(), strict=True)
        ],
        "pixels": int(result.ids.size),
    }
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    return Found(result, about, said or "no segment")


def depth_found(result: Any) -> Found:
    depth = result.depth_m
    about = {
        "least_m": float(depth.min()),
        "mean_m": float(depth.mean()),
        "greatest_m": float(depth.max()),
    }
    return Found(result, about, f"{about['least_m']:.2f} to {about['greatest_m']:.2f} m")
