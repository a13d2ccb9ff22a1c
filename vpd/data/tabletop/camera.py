"""The pinhole camera of a scene: rays through pixels, and where a point lands."""

import math

import numpy as np

from vpd.data.tabletop.solids import Array, Point, Vectors
from vpd.data.tabletop.spec import CameraSpec


class Camera:
    """Axes and focal length of a `CameraSpec`.

    Rays are scaled so that their parameter is the depth along the optical axis, in metres.
    """

    def __init__(self, spec: CameraSpec):
        c, t = spec.position, spec.target
        self.position: Point = c
        self.forward = _unit((t[0] - c[0], t[1] - c[1], t[2] - c[2]))
        fx, fy, fz = self.forward
        self.right = _unit((fy, -fx, 0.0))  # forward x up: level, so the picture has no roll
        rx, ry, _ = self.right
        self.up: Point = (ry * fz, -rx * fz, rx * fy - ry * fx)
        self.focal = 1.0 / math.tan(math.radians(spec.half_fov_deg))

    def rays(self, columns: tuple[int, int], rows: tuple[int, int], size: int) -> Vectors:
        """Directions through the pixel centres of a box of a size x size picture.

        Returns:
            Three arrays [rows * columns], row by row.
        """
        u = ((np.arange(*columns) + 0.5) / size * 2 - 1) / self.focal
        v = (1 - (np.arange(*rows) + 0.5) / size * 2) / self.focal
        f, r, up = self.forward, self.right, self.up
        x, y, z = (
            (f[i] + u[None, :] * r[i] + v[:, None] * up[i]).ravel() for i in range(3)
        )  # each [rows, columns] before it is flattened
        return x, y, z

    def project(self, point: Point) -> tuple[float, float, float]:
        """Image x (-1 left edge, 1 right edge), image y (-1 top, 1 bottom), depth in metres."""
        w = tuple(p - c for p, c in zip(point, self.position, strict=True))
        depth = sum(a * b for a, b in zip(w, self.forward, strict=True))
        x = sum(a * b for a, b in zip(w, self.right, strict=True))
        y = sum(a * b for a, b in zip(w, self.up, strict=True))
        return x / depth * self.focal, -y / depth * self.focal, depth

    def points(self, rays: Vectors, depth: Array) -> Vectors:
        """World positions [N] at the given depths along the rays."""
        c = self.position
        return c[0] + depth * rays[0], c[1] + depth * rays[1], c[2] + depth * rays[2]


def _unit(v: Point) -> Point:
    n = math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
    return v[0] / n, v[1] / n, v[2] / n
