"""What a Tabletop scene is: the vocabulary of its objects and the plain values that describe it.

A `SceneSpec` holds everything a picture depends on, seeds of its textures and of its sensor noise
included. Changing one object and rendering again therefore changes nothing else in the picture.
Lengths are metres; x points right, y away from the camera, z up; the table is the plane z = 0.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

VERSION = "1"
IMAGE_SIZE = 128  # pixels, both sides

SHAPES = ("ball", "cube", "cylinder", "cone", "pyramid", "ring")
COLORS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "white")
MATERIALS = ("matte", "shiny", "striped")
SIZES = ("small", "large")
FLOOR_KINDS = ("checker", "noise", "wood", "waves")
CLASSES = ("floor", "wall", *SHAPES)  # semantic class id = position

WALL_Y = 1.75
VISIBLE_PX = 15  # an object with fewer visible pixels is neither annotated nor a distractor
TARGET_PX = 60  # least visible pixels of an object that a sentence refers to


def _check_choice(owner: str, field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{owner}.{field} must be one of {', '.join(allowed)}, got {value!r}")


@dataclass(frozen=True)
class ObjectSpec:
    """One object standing on the table.

    Attributes:
        radius: half of its rough extent, in metres (shapes scale with it).
        x, y: where it stands, in metres.
        yaw: turn about the vertical axis, in radians.
        shade: factor on its colour, about 1.
    """

    shape: str
    color: str
    material: str
    size: str
    radius: float
    x: float
    y: float
    yaw: float
    shade: float

    def __post_init__(self) -> None:
        _check_choice("ObjectSpec", "shape", self.shape, SHAPES)
        _check_choice("ObjectSpec", "color", self.color, COLORS)
        _check_choice("ObjectSpec", "material", self.material, MATERIALS)
        _check_choice("ObjectSpec", "size", self.size, SIZES)
        if not self.radius > 0:
            raise ValueError(f"ObjectSpec.radius must be positive, got {self.radius!r}")


@dataclass(frozen=True)
class CameraSpec:
    """A pinhole camera without roll: where it is, where it looks, half its field of view."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    half_fov_deg: float


@dataclass(frozen=True)
class LightSpec:
    """One distant light with soft shadows, plus ambient light; tint multiplies object colours."""

    azimuth: float
    elevation: float
    ambient: float
    diffuse: float
    tint: tuple[float, float, float]


@dataclass(frozen=True)
class FloorSpec:
    """Floor colour (linear RGB, about 0-1) and the pattern on it.

    Attributes:
        angle: direction of the pattern, in radians.
        frequency: pattern periods per metre (checker, wood) or its third (waves).
        contrast: relative strength of the pattern.
        noise_frequency: cells of the noise lattice per metre.
        noise_seed: seed of the noise lattice.
    """

    kind: str
    color: tuple[float, float, float]
    angle: float
    frequency: float
    contrast: float
    noise_frequency: float
    noise_seed: int

    def __post_init__(self) -> None:
        _check_choice("FloorSpec", "kind", self.kind, FLOOR_KINDS)


@dataclass(frozen=True)
class WallSpec:
    """Wall colour, and whether it has vertical bars."""

    color: tuple[float, float, float]
    bars: bool


@dataclass(frozen=True)
class SceneSpec:
    """All that a picture depends on. Object k (from 1) of the instance map is `objects[k - 1]`."""

    seed: int
    objects: tuple[ObjectSpec, ...]
    camera: CameraSpec
    light: LightSpec
    floor: FloorSpec
    wall: WallSpec
    sensor_seed: int
    version: str = VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, ready for `json.dumps`; `from_dict` is its inverse."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "SceneSpec":
        """Rebuilds a spec.

        Raises:
            ValueError: on another world version, missing or unknown fields, or unknown words.
        """
        if not isinstance(data, dict) or data.get("version") != VERSION:
            found = data.get("version") if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"scene must be of Tabletop version {VERSION!r}, got {found!r}")
        try:
            light, floor, wall, camera = (data[k] for k in ("light", "floor", "wall", "camera"))
            return SceneSpec(
                seed=data["seed"],
                objects=tuple(ObjectSpec(**o) for o in data["objects"]),
                camera=CameraSpec(
                    tuple(camera["position"]), tuple(camera["target"]), camera["half_fov_deg"]
                ),
                light=LightSpec(**{**light, "tint": tuple(light["tint"])}),
                floor=FloorSpec(**{**floor, "color": tuple(floor["color"])}),
                wall=WallSpec(**{**wall, "color": tuple(wall["color"])}),
                sensor_seed=data["sensor_seed"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"scene has missing or unknown fields: {error}") from error
