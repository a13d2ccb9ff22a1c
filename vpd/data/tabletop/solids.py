"""The six solids: where a ray meets one, and the surface normal there.

Solids stand on z = 0 in their own frame and scale with their radius r. Vectors are kept as three
separate arrays, and everything is float64 with elementwise arithmetic only: no library may then
round differently from machine to machine by enough to change an 8-bit picture.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Vectors: TypeAlias = tuple[Array, Array, Array]
Mask: TypeAlias = NDArray[np.bool_]
Point: TypeAlias = tuple[float, float, float]

MISS = 1e9  # ray parameter of a ray that meets nothing
_TINY = 1e-12


def dot(a: Vectors, b: Vectors | Point) -> Array:
    """Inner products of the vectors with one vector or with as many others."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@dataclass(frozen=True)
class Ball:
    """A sphere of radius r touching the table."""

    r: float

    @property
    def extent(self) -> Point:
        """Half width, half depth and height of its bounding box."""
        return self.r, self.r, 2 * self.r

    def hit(self, o: Point, d: Vectors) -> Array:
        """Parameter t of the first point o + t d on the surface; MISS where there is none.

        Args:
            o: camera position, outside the solid.
            d: [N] ray directions of any length.
        """
        cz = o[2] - self.r
        a = dot(d, d)
        b = d[0] * o[0] + d[1] * o[1] + d[2] * cz
        disc = b * b - a * (o[0] ** 2 + o[1] ** 2 + cz**2 - self.r**2)
        return np.where(disc > 0, (-b - np.sqrt(np.maximum(disc, 0))) / a, MISS)

    def normal(self, p: Vectors) -> Vectors:
        """Unit normals at surface points p."""
        return p[0] / self.r, p[1] / self.r, (p[2] - self.r) / self.r


@dataclass(frozen=True)
class Polyhedron:
    """A convex solid as half spaces n . p <= b."""

    planes: tuple[tuple[Point, float], ...]
    extent: Point

    def hit(self, o: Point, d: Vectors) -> Array:
        """See `Ball.hit`; the last entry into a half space must precede the first exit."""
        enter = np.full(d[0].shape, -MISS)
        leave = np.full(d[0].shape, MISS)
        for n, b in self.planes:
            speed = dot(d, n)
            speed = np.where(np.abs(speed) < _TINY, _TINY, speed)
            t = (b - (n[0] * o[0] + n[1] * o[1] + n[2] * o[2])) / speed
            inward = speed < 0
            enter = np.where(inward, np.maximum(enter, t), enter)
            leave = np.where(inward, leave, np.minimum(leave, t))
        return np.where((enter < leave) & (enter > 0), enter, MISS)

    def normal(self, p: Vectors) -> Vectors:
        """Unit normals at surface points p: those of the plane each point lies on."""
        outside = np.stack([dot(p, n) - b for n, b in self.planes])
        normals = np.array([n for n, _ in self.planes])[outside.argmax(0)]
        return normals[:, 0], normals[:, 1], normals[:, 2]


@dataclass(frozen=True)
class Conic:
    """An upright cylinder (slope 0) or cone: radius `base - slope * z` for z in [0, height]."""

    base: float
    slope: float
    height: float

    @property
    def extent(self) -> Point:
        """Half width, half depth and height of its bounding box."""
        return self.base, self.base, self.height

    def hit(self, o: Point, d: Vectors) -> Array:
        """See `Ball.hit`: inside the (double) cone and inside the slab of its height."""
        k = self.slope
        # x^2 + y^2 - (base - k z)^2 = a t^2 + 2 b t + c along the ray
        radius = self.base - k * o[2]
        a = d[0] ** 2 + d[1] ** 2 - (k * d[2]) ** 2
        b = o[0] * d[0] + o[1] * d[1] + k * radius * d[2]
        disc = b * b - a * (o[0] ** 2 + o[1] ** 2 - radius**2)
        root = np.sqrt(np.maximum(disc, 0))
        dz = np.where(np.abs(d[2]) < _TINY, _TINY, d[2])
        bottom, top = -o[2] / dz, (self.height - o[2]) / dz
        enter = np.maximum((-b - root) / a, np.minimum(bottom, top))
        leave = np.minimum((-b + root) / a, np.maximum(bottom, top))
        return np.where((disc > 0) & (enter < leave) & (enter > 0), enter, MISS)

    def normal(self, p: Vectors) -> Vectors:
        """Unit normals at surface points p."""
        lid = p[2] > self.height * (1 - 1e-9)
        across = np.hypot(p[0], p[1]) + _TINY
        scale = np.where(lid, 0.0, 1.0 / (across * np.hypot(1.0, self.slope)))
        up = np.where(lid, 1.0, self.slope / np.hypot(1.0, self.slope))
        return p[0] * scale, p[1] * scale, up


@dataclass(frozen=True)
class Ring:
    """A torus lying on the table: `tube` thick around a circle of radius `around`."""

    around: float
    tube: float
    steps: int = 40

    @property
    def extent(self) -> Point:
        """Half width, half depth and height of its bounding box."""
        return self.around + self.tube, self.around + self.tube, 2 * self.tube

    def hit(self, o: Point, d: Vectors) -> Array:
        """See `Ball.hit`; by sphere tracing (Hart, 1996), started next to the solid."""
        length = np.sqrt(dot(d, d))
        ux, uy, uz = d[0] / length, d[1] / length, d[2] / length
        cz = o[2] - self.tube
        distance = float(np.sqrt(o[0] ** 2 + o[1] ** 2 + cz**2))
        reach = self.around + self.tube
        s = np.full(d[0].shape, distance - 1.2 * reach)
        gap = np.zeros(d[0].shape)
        for _ in range(self.steps):
            x, y, z = o[0] + s * ux, o[1] + s * uy, cz + s * uz
            across = np.sqrt(x * x + y * y) - self.around
            gap = np.sqrt(across * across + z * z) - self.tube
            s = s + gap
        close = (gap < 0.005 * reach) & (s < distance + 1.5 * reach)
        return np.where(close, s / length, MISS)

    def normal(self, p: Vectors) -> Vectors:
        """Unit normals at surface points p."""
        z = p[2] - self.tube
        across = np.sqrt(p[0] ** 2 + p[1] ** 2) + _TINY
        pull = 1.0 - self.around / across
        x, y = p[0] * pull, p[1] * pull
        length = np.sqrt(x * x + y * y + z * z) + _TINY
        return x / length, y / length, z / length


Solid: TypeAlias = Ball | Polyhedron | Conic | Ring


def solid(shape: str, r: float) -> Solid:
    """The solid of a shape name at radius r (metres)."""
    if shape == "ball":
        return Ball(r)
    if shape == "cylinder":
        return Conic(base=0.8 * r, slope=0.0, height=1.7 * r)
    if shape == "cone":
        return Conic(base=r, slope=1 / 2.1, height=2.1 * r)
    if shape == "ring":
        return Ring(around=0.72 * r, tube=0.30 * r)
    if shape == "cube":
        a = 0.82 * r
        sides = tuple(
            ((sx, sy, 0.0), a) for sx, sy in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
        )
        return Polyhedron(
            (*sides, ((0.0, 0.0, 1.0), 2 * a), ((0.0, 0.0, -1.0), 0.0)), (a, a, 2 * a)
        )
    if shape == "pyramid":
        a, h = 1.05 * r, 1.9 * r
        c, s = h / float(np.hypot(h, a)), a / float(np.hypot(h, a))
        sides = tuple(((c * sx, c * sy, s), c * a) for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1)))
        return Polyhedron((*sides, ((0.0, 0.0, -1.0), 0.0)), (a, a, h))
    raise ValueError(f"shape must be a Tabletop shape, got {shape!r}")
