"""Colours: light and soft shadows, floor and wall, the materials of the objects."""

import math

import numpy as np

from vpd.data.tabletop.solids import Array, Mask, Point, Solid, Vectors, dot
from vpd.data.tabletop.spec import FloorSpec, LightSpec, ObjectSpec, SceneSpec

RGB = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.12, 0.62, 0.15),
    "blue": (0.10, 0.22, 0.85),
    "yellow": (0.93, 0.82, 0.10),
    "purple": (0.52, 0.13, 0.65),
    "cyan": (0.10, 0.75, 0.80),
    "orange": (0.95, 0.48, 0.05),
    "white": (0.92, 0.92, 0.92),
}
NOISE_CELLS = 64  # side of the repeating noise lattice
_SHADOW_DEPTH = 0.62


def light_direction(light: LightSpec) -> Point:
    """Unit vector towards the light."""
    flat = math.cos(light.elevation)
    return (
        math.cos(light.azimuth) * flat,
        math.sin(light.azimuth) * flat,
        math.sin(light.elevation),
    )


def shadow(p: Vectors, objects: tuple[ObjectSpec, ...], to_light: Point, skip: int = -1) -> Array:
    """Share of the direct light that reaches each point, in (0, 1].

    Each object but `skip` dims by how near the ray to the light passes its middle: a soft edge
    without a single shadow ray.
    """
    lit = np.ones(p[0].shape)
    for i, o in enumerate(objects):
        if i == skip:
            continue
        wx, wy, wz = o.x - p[0], o.y - p[1], 0.8 * o.radius - p[2]
        along = wx * to_light[0] + wy * to_light[1] + wz * to_light[2]
        miss = np.sqrt(np.maximum(wx * wx + wy * wy + wz * wz - along * along, 0))
        reach = o.radius * (0.75 if o.shape in ("cone", "pyramid") else 0.95)
        dark = np.clip((1.15 * reach - miss) / (0.45 * reach), 0, 1)
        lit *= 1 - np.where(along > 0, dark, 0) * _SHADOW_DEPTH
    return lit


def uniform_noise(seed: int, count: int) -> Array:
    """`count` numbers in [0, 1) from raw PCG64 output, the same in every NumPy version."""
    raw = np.random.PCG64(seed).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def lattice_noise(seed: int, x: Array, y: Array) -> Array:
    """Value noise in [-0.5, 0.5]: random lattice values, smoothly interpolated, repeating."""
    lattice = uniform_noise(seed, NOISE_CELLS**2) - 0.5
    ix, iy = np.floor(x), np.floor(y)
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    x0, y0 = ix.astype(np.int64) % NOISE_CELLS, iy.astype(np.int64) % NOISE_CELLS * NOISE_CELLS
    x1, y1 = (x0 + 1) % NOISE_CELLS, (y0 + NOISE_CELLS) % NOISE_CELLS**2
    near = lattice[y0 + x0] * (1 - fx) + lattice[y0 + x1] * fx
    far = lattice[y1 + x0] * (1 - fx) + lattice[y1 + x1] * fx
    return near * (1 - fy) + far * fy


def floor_pattern(floor: FloorSpec, x: Array, y: Array) -> Array:
    """Relative brightness of the floor, about 0, at table positions [N]."""
    c, s = math.cos(floor.angle), math.sin(floor.angle)
    gx, gy = x * c + y * s, y * c - x * s
    fx, fy, contrast = gx * floor.frequency, gy * floor.frequency, floor.contrast
    if floor.kind == "waves":
        return np.sin(3 * fx) * (0.6 * contrast)
    stretch = 0.2 if floor.kind == "wood" else 1.0
    grain = lattice_noise(
        floor.noise_seed, gx * (stretch * floor.noise_frequency), gy * floor.noise_frequency
    )
    if floor.kind == "checker":
        tiles = (np.floor(fx) + np.floor(fy)) % 2 - 0.5
        return tiles * (1.3 * contrast) + grain * (0.5 * contrast)
    if floor.kind == "noise":
        return grain * (1.6 * contrast)
    boards = np.floor(fy) % 2 - 0.5
    return grain * (1.2 * contrast) + boards * (0.6 * contrast)


def background_color(spec: SceneSpec, points: Vectors, is_wall: Mask) -> Array:
    """Colours [N, 3] of floor and wall points; is_wall is bool [N]."""
    light, to_light = spec.light, light_direction(spec.light)
    color = np.empty((len(is_wall), 3))
    on_floor = ~is_wall
    p = (points[0][on_floor], points[1][on_floor], np.zeros(int(on_floor.sum())))
    lit = light.ambient + light.diffuse * to_light[2] * shadow(p, spec.objects, to_light)
    lit *= 1 + floor_pattern(spec.floor, p[0], p[1])
    color[on_floor] = lit[:, None] * np.array(spec.floor.color)
    x, z = points[0][is_wall], points[2][is_wall]
    bright = 1 + 0.08 * (z - 0.5)
    if spec.wall.bars:
        bright += 0.08 * (np.floor(4 * x) % 2 - 0.5)
    bright *= light.ambient + 0.55 * light.diffuse
    color[is_wall] = bright[:, None] * np.array(spec.wall.color)
    return color


def object_color(
    spec: SceneSpec, index: int, body: Solid, local: Vectors, normal: Vectors, rays: Vectors
) -> Array:
    """Colours [N, 3] of points on object `index`.

    Args:
        local: positions in the object's frame (turned by its yaw).
        normal: unit normals in world axes.
        rays: viewing directions of any length, in world axes.
    """
    o, light, to_light = spec.objects[index], spec.light, light_direction(spec.light)
    c, s = math.cos(o.yaw), math.sin(o.yaw)
    x, y, z = local
    world = (c * x - s * y + o.x, s * x + c * y + o.y, z)
    direct = shadow(world, spec.objects, to_light, skip=index)
    contact = 0.75 + 0.25 * np.clip(z / o.radius, 0, 1)  # darker where it meets the table
    lit = light.ambient * contact + light.diffuse * np.maximum(dot(normal, to_light), 0) * direct
    paint = np.array(RGB[o.color]) * np.array(light.tint) * o.shade
    color = lit[:, None] * paint
    if o.material == "striped":
        color[_is_dark_band(o, body, local)] *= 0.3
    elif o.material == "shiny":
        length = np.sqrt(dot(rays, rays))
        facing = 2 * dot(rays, normal)
        mirror = tuple((rays[i] - facing * normal[i]) / length for i in range(3))
        glint = np.maximum(dot((mirror[0], mirror[1], mirror[2]), to_light), 0)
        sky = np.clip(mirror[2], 0, 1) ** 2 * 0.22
        color = color * 0.85 + (glint**18 * direct * 0.9 + sky)[:, None]
    return color


def _is_dark_band(o: ObjectSpec, body: Solid, local: Vectors) -> Mask:
    """Level bands counted from the top, so that a lid has its own colour; spokes on a ring."""
    x, y, z = local
    if o.shape == "ring":
        return np.floor(np.arctan2(y, x) * (8 / math.pi)) % 2 == 1
    return np.floor((body.extent[2] - z) / o.radius * 3.2 + 0.25) % 2 == 1
