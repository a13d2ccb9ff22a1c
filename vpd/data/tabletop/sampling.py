"""Draws scenes: how many objects, which, where, and under which camera, light and textures."""

import math
import random

from vpd.data.tabletop import dice
from vpd.data.tabletop.dice import RandomSource
from vpd.data.tabletop.spec import (
    COLORS,
    FLOOR_KINDS,
    MATERIALS,
    SHAPES,
    SIZES,
    CameraSpec,
    FloorSpec,
    LightSpec,
    ObjectSpec,
    SceneSpec,
    WallSpec,
)

RADIUS_M = {"small": 0.155, "large": 0.25}
MIN_OBJECTS, MAX_OBJECTS = 4, 9
SPACING = 0.98  # least centre distance, in sums of the two radii


def sample_scene(seed: int) -> SceneSpec:
    """The scene of a seed; always the same for the same seed and world version.

    Raises:
        ValueError: if the seed is not an integer >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
    rng = random.Random(seed)
    return SceneSpec(
        seed=seed,
        objects=_sample_objects(rng),
        camera=_sample_camera(rng),
        light=_sample_light(rng),
        floor=_sample_floor(rng),
        wall=_sample_wall(rng),
        sensor_seed=dice.below(rng, 2**32),
    )


def _sample_objects(rng: RandomSource) -> tuple[ObjectSpec, ...]:
    count = MIN_OBJECTS + dice.below(rng, MAX_OBJECTS - MIN_OBJECTS + 1)
    # Few shapes and colours per scene: this alone gives nearly every object a distractor.
    shapes = dice.sample(rng, SHAPES, dice.choice(rng, (2, 3, 3, 4)))
    colors = dice.sample(rng, COLORS, dice.choice(rng, (2, 3, 3, 4)))
    materials = dice.sample(rng, MATERIALS, 2 if rng.random() < 0.7 else 3)
    objects: list[ObjectSpec] = []
    tries = 0
    # A crowded table may stay below `count`, never below MIN_OBJECTS.
    while len(objects) < count and (tries < 12 * count or len(objects) < MIN_OBJECTS):
        tries += 1
        size = dice.choice(rng, SIZES)
        radius = RADIUS_M[size] * dice.uniform(rng, 0.92, 1.08)
        x, y = dice.uniform(rng, -0.88, 0.88), dice.uniform(rng, -0.62, 1.2)
        if any(math.hypot(x - o.x, y - o.y) < SPACING * (radius + o.radius) for o in objects):
            continue
        objects.append(
            ObjectSpec(
                shape=dice.choice(rng, shapes),
                color=dice.choice(rng, colors),
                material=dice.choice(rng, materials),
                size=size,
                radius=radius,
                x=x,
                y=y,
                yaw=dice.uniform(rng, 0.0, math.pi),
                shade=dice.uniform(rng, 0.9, 1.08),
            )
        )
    return tuple(objects)


def _sample_camera(rng: RandomSource) -> CameraSpec:
    position = (
        dice.uniform(rng, -0.3, 0.3),
        dice.uniform(rng, -3.3, -2.9),
        dice.uniform(rng, 1.6, 2.3),
    )
    target = (dice.uniform(rng, -0.05, 0.05), 0.12, 0.12)
    return CameraSpec(position, target, half_fov_deg=dice.uniform(rng, 16.3, 18.0))


def _sample_light(rng: RandomSource) -> LightSpec:
    return LightSpec(
        azimuth=dice.uniform(rng, 0.0, 2 * math.pi),
        elevation=dice.uniform(rng, 0.75, 1.25),
        ambient=dice.uniform(rng, 0.35, 0.55),
        diffuse=dice.uniform(rng, 0.5, 0.75),
        tint=_three(rng, 0.94, 1.06),
    )


def _three(rng: RandomSource, low: float, high: float) -> tuple[float, float, float]:
    return dice.uniform(rng, low, high), dice.uniform(rng, low, high), dice.uniform(rng, low, high)


def _sample_color(
    rng: RandomSource, hue: tuple[float, float], lift: tuple[float, float]
) -> tuple[float, float, float]:
    """Three channels within `hue`, all lifted by one shared amount within `lift`."""
    r, g, b = _three(rng, *hue)
    up = dice.uniform(rng, *lift)
    return r + up, g + up, b + up


def _sample_floor(rng: RandomSource) -> FloorSpec:
    return FloorSpec(
        kind=dice.choice(rng, FLOOR_KINDS),
        color=_sample_color(rng, hue=(0.15, 0.375), lift=(0.12, 0.38)),
        angle=dice.uniform(rng, 0.0, math.pi),
        frequency=dice.uniform(rng, 1.5, 3.5),
        contrast=dice.uniform(rng, 0.08, 0.22),
        noise_frequency=dice.choice(rng, (1.4, 3.75)),
        noise_seed=dice.below(rng, 2**32),
    )


def _sample_wall(rng: RandomSource) -> WallSpec:
    return WallSpec(
        color=_sample_color(rng, hue=(0.16, 0.34), lift=(0.2, 0.5)),
        bars=rng.random() < 0.4,
    )
