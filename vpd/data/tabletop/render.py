"""Renders a scene with every label: analytic ray casting, four rays per pixel on the objects."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.tabletop.camera import Camera
from vpd.data.tabletop.sampling import sample_scene
from vpd.data.tabletop.shading import background_color, object_color
from vpd.data.tabletop.solids import MISS, Array, Mask, Vectors, solid
from vpd.data.tabletop.spec import CLASSES, IMAGE_SIZE, WALL_Y, ObjectSpec, SceneSpec

_SENSOR_NOISE = 0.008
_FINE = 2 * IMAGE_SIZE  # side of the supersampled picture


@dataclass(frozen=True)
class SceneObject:
    """An object together with how it appears in the picture.

    Attributes:
        visible_px: pixels of the instance map that are its own.
        visible_fraction: share of its outline inside the picture that nothing hides, 0-1.
        u: image x of its middle, -1 at the left edge, 1 at the right edge.
        z: depth of its middle along the optical axis, in metres.
    """

    spec: ObjectSpec
    visible_px: int
    visible_fraction: float
    u: float
    z: float

    @property
    def shape(self) -> str:
        return self.spec.shape

    @property
    def color(self) -> str:
        return self.spec.color

    @property
    def material(self) -> str:
        return self.spec.material

    @property
    def size(self) -> str:
        return self.spec.size


@dataclass(frozen=True, eq=False)
class Scene:
    """A rendered scene.

    Attributes:
        spec: what was rendered.
        objects: one entry per object of the spec, in its order.
        image: uint8 [128, 128, 3], RGB.
        instance: uint8 [128, 128]; 0 = background, k = objects[k - 1].
        semantic: uint8 [128, 128]; index into CLASSES.
        depth_m: float32 [128, 128]; metres along the optical axis.
    """

    spec: SceneSpec
    objects: tuple[SceneObject, ...]
    image: NDArray[np.uint8]
    instance: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    depth_m: NDArray[np.float32]


def render(scene: SceneSpec | int) -> Scene:
    """Renders a spec, or the scene of a seed.

    Identical for the same spec on every machine: geometry is float64 and elementwise, and random
    numbers come from raw generator output.

    Raises:
        ValueError: if the seed is negative or the scene holds more than 255 objects.
        TypeError: if given neither a spec nor an integer.
    """
    spec = scene if isinstance(scene, SceneSpec) else sample_scene(scene)
    if len(spec.objects) > 255:
        raise ValueError(f"a scene holds at most 255 objects, got {len(spec.objects)}")
    camera = Camera(spec.camera)
    background, background_depth, is_wall = _render_background(spec, camera)
    fine = _render_objects(spec, camera)
    middles = [camera.project((o.x, o.y, o.radius)) for o in spec.objects]

    order = sorted(range(len(middles)), key=lambda i: middles[i][2])
    instance = _majority(fine.ids, [i + 1 for i in order])
    own = fine.ids == instance.repeat(2, 0).repeat(2, 1)
    depth = _block_sum(np.where(own, fine.depth, 0)) / np.maximum(_block_sum(own), 1)
    covered = _block_sum(fine.ids > 0) / 4
    color = background * (1 - covered)[..., None] + _block_sum(fine.color) / 4

    pixels = np.bincount(instance.ravel(), minlength=len(middles) + 1)
    samples = np.bincount(fine.ids.ravel(), minlength=len(middles) + 1)
    return Scene(
        spec=spec,
        objects=tuple(
            SceneObject(
                spec=o,
                visible_px=int(pixels[i + 1]),
                visible_fraction=float(samples[i + 1] / max(fine.outline[i], 1)),
                u=middles[i][0],
                z=middles[i][2],
            )
            for i, o in enumerate(spec.objects)
        ),
        image=_to_bytes(color + _sensor_noise(spec.sensor_seed)),
        instance=instance,
        semantic=_classes(spec, instance, is_wall),
        depth_m=np.where(instance > 0, depth, background_depth).astype(np.float32),
    )


def semantic_labels(spec: SceneSpec, instance: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The classes of a scene's pixels from its instance map, without rendering it again.

    Args:
        instance: uint8 [128, 128], the scene's instance map.

    Returns:
        uint8 [128, 128]; index into CLASSES, as `Scene.semantic`.
    """
    _, _, is_wall = _hit_background(Camera(spec.camera))
    return _classes(spec, instance, is_wall.reshape(instance.shape))


def _classes(spec: SceneSpec, instance: NDArray[np.uint8], is_wall: Mask) -> NDArray[np.uint8]:
    class_of = np.array([0] + [CLASSES.index(o.shape) for o in spec.objects], np.uint8)
    return np.where(instance > 0, class_of[instance], is_wall.astype(np.uint8))


def _hit_background(camera: Camera) -> tuple[Vectors, Array, Mask]:
    """One ray per pixel, in reading order: the rays, their depth, and whether they hit the wall."""
    full = (0, IMAGE_SIZE)
    rays = camera.rays(full, full, IMAGE_SIZE)
    c = camera.position
    to_floor = np.where(rays[2] < 0, -c[2] / np.minimum(rays[2], -1e-9), MISS)
    is_wall = c[1] + to_floor * rays[1] > WALL_Y
    return rays, np.where(is_wall, (WALL_Y - c[1]) / rays[1], to_floor), is_wall


def _render_background(spec: SceneSpec, camera: Camera) -> tuple[Array, Array, Mask]:
    """Colour [H, W, 3] in [0, 1], depth [H, W] and where the wall is, one ray per pixel."""
    rays, depth, is_wall = _hit_background(camera)
    color = background_color(spec, camera.points(rays, depth), is_wall)
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    color = _soften(np.clip(color, 0, 1).reshape(*shape, 3))
    return color, depth.reshape(shape), is_wall.reshape(shape)


def _soften(color: Array) -> Array:
    """Blurs by (1, 6, 1) / 8 both ways, so that pattern edges do not look like stairs."""
    for axis in (0, 1):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        wide = np.pad(color, pad, mode="edge")
        before, after = (wide[:-2], wide[2:]) if axis == 0 else (wide[:, :-2], wide[:, 2:])
        color = 0.75 * color + 0.125 * (before + after)
    return color


@dataclass
class _Fine:
    """Objects at twice the resolution; outline counts each object's samples as if alone."""

    color: Array  # [2H, 2W, 3], 0 where no object is
    depth: Array  # [2H, 2W], MISS where no object is
    ids: NDArray[np.uint8]  # [2H, 2W]
    outline: list[int]


def _render_objects(spec: SceneSpec, camera: Camera) -> _Fine:
    fine = _Fine(
        color=np.zeros((_FINE, _FINE, 3)),
        depth=np.full((_FINE, _FINE), MISS),
        ids=np.zeros((_FINE, _FINE), np.uint8),
        outline=[],
    )
    for i, o in enumerate(spec.objects):
        body = solid(o.shape, o.radius)
        x0, x1, y0, y1 = _bounding_box(camera, o, body.extent)
        if x0 >= x1 or y0 >= y1:
            fine.outline.append(0)
            continue
        rays = camera.rays((x0, x1), (y0, y1), _FINE)
        cos, sin = math.cos(o.yaw), math.sin(o.yaw)
        cx, cy = camera.position[0] - o.x, camera.position[1] - o.y
        origin = (cos * cx + sin * cy, cos * cy - sin * cx, camera.position[2])
        turned = (cos * rays[0] + sin * rays[1], cos * rays[1] - sin * rays[0], rays[2])
        depth = body.hit(origin, turned)
        fine.outline.append(int((depth < MISS).sum()))

        box = (slice(y0, y1), slice(x0, x1))
        front = depth < fine.depth[box].ravel()
        t = depth[front]
        local = tuple(origin[k] + t * turned[k][front] for k in range(3))
        local = (local[0], local[1], local[2])
        nx, ny, nz = body.normal(local)
        normal = (cos * nx - sin * ny, sin * nx + cos * ny, nz)
        seen: Vectors = (rays[0][front], rays[1][front], rays[2][front])
        color = np.clip(object_color(spec, i, body, local, normal, seen), 0, 1)
        front = front.reshape(y1 - y0, x1 - x0)
        fine.depth[box][front] = t
        fine.ids[box][front] = i + 1
        fine.color[box][front] = color
    return fine


def _bounding_box(
    camera: Camera, o: ObjectSpec, extent: tuple[float, float, float]
) -> tuple[int, int, int, int]:
    """Columns x0..x1 and rows y0..y1 of the fine picture that hold the whole object."""
    cos, sin = math.cos(o.yaw), math.sin(o.yaw)
    across, deep, height = extent
    corners = [
        camera.project((o.x + cos * a - sin * b, o.y + sin * a + cos * b, z))
        for a in (-across, across)
        for b in (-deep, deep)
        for z in (0.0, height)
    ]
    if min(depth for _, _, depth in corners) <= 0:
        raise ValueError(f"objects must stand in front of the camera, got x={o.x}, y={o.y}")
    xs = [(u + 1) / 2 * _FINE for u, _, _ in corners]
    ys = [(v + 1) / 2 * _FINE for _, v, _ in corners]
    x0, x1, y0, y1 = (
        math.floor(min(xs)),
        math.ceil(max(xs)),
        math.floor(min(ys)),
        math.ceil(max(ys)),
    )
    return max(x0, 0), min(x1, _FINE), max(y0, 0), min(y1, _FINE)


def _block_sum(fine: NDArray[Any]) -> Array:
    """Sums 2 x 2 blocks: [2H, 2W, ...] -> float64 [H, W, ...]."""
    a = fine.astype(np.float64, copy=False)
    return a[::2, ::2] + a[::2, 1::2] + a[1::2, ::2] + a[1::2, 1::2]


def _majority(ids: NDArray[np.uint8], nearest_first: list[int]) -> NDArray[np.uint8]:
    """The commonest of each pixel's four ids; a tie goes to the nearer object, not the floor."""
    best = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    most = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for k in [*nearest_first, 0]:
        hit = (ids == k).view(np.uint8)
        count = hit[::2, ::2] + hit[::2, 1::2] + hit[1::2, ::2] + hit[1::2, 1::2]
        more = count > most
        best[more], most[more] = k, count[more]
    return best


def _sensor_noise(seed: int) -> Array:
    """Nearly normal noise [H, W, 3]: the sum of the eight bytes of a random 64-bit integer."""
    raw = np.random.PCG64(seed).random_raw(IMAGE_SIZE * IMAGE_SIZE * 3)
    raw = (raw & np.uint64(0x00FF00FF00FF00FF)) + (
        (raw >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    )
    raw = (raw & np.uint64(0x0000FFFF0000FFFF)) + (
        (raw >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    )
    total = (raw + (raw >> np.uint64(32))) & np.uint64(0xFFFF)
    spread = math.sqrt(8 * (256**2 - 1) / 12)
    noise = (total.astype(np.float64) - 8 * 127.5) * (_SENSOR_NOISE / spread)
    return noise.reshape(IMAGE_SIZE, IMAGE_SIZE, 3)


def _to_bytes(color: Array) -> NDArray[np.uint8]:
    return np.floor(np.clip(color, 0, 1) * 255 + 0.5).astype(np.uint8)
