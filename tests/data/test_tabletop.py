"""The world: frozen pictures and sentences, geometry against closed forms, split statistics."""

import dataclasses
import hashlib
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.data import tabletop
from vpd.data.tabletop.camera import Camera
from vpd.data.tabletop.solids import MISS, solid

# Changing either hash means a new world: every model trained on the old one is then void.
PICTURES_SHA256 = "1c67056bb5c991620d89671d5827dd92692cf5d0926dc00d19613fde374b2bfc"
SENTENCES_SHA256 = "ec2e951c8cf8137fe3f6edd4aaa796ffbb5c1b6a7db8d7c3f910b17efd445004"


@pytest.fixture(scope="module")
def scenes():
    return [tabletop.render(seed) for seed in range(32)]


def _sha256(parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def test_pictures_are_frozen(scenes):
    def parts():
        for s in scenes:
            yield s.image.tobytes() + s.instance.tobytes() + s.semantic.tobytes()
            yield np.rint(s.depth_m.astype(np.float64) * 1000).astype("<u2").tobytes()

    assert _sha256(parts()) == PICTURES_SHA256


def test_sentences_are_frozen(scenes):
    def lines():
        for s in scenes:
            rng = random.Random(s.spec.seed)
            yield from (f"{e.kind} {e.target} {e.text}" for e in tabletop.expressions(s, rng, 2))
            yield from tabletop.captions(s, rng)
            yield from tabletop.tags(s)

    assert _sha256(line.encode() + b"\n" for line in lines()) == SENTENCES_SHA256


def test_labels_agree_with_each_other(scenes):
    for s in scenes:
        assert s.image.shape == (128, 128, 3)
        assert s.image.dtype == s.instance.dtype == s.semantic.dtype == np.uint8
        assert s.depth_m.dtype == np.float32
        assert s.depth_m.min() > 2.0
        assert s.depth_m.max() < 6.0
        for k, o in enumerate(s.objects, start=1):
            mask = s.instance == k
            assert o.visible_px == mask.sum()
            assert 0 <= o.visible_fraction <= 1
            assert (s.semantic[mask] == tabletop.CLASSES.index(o.shape)).all()
            if mask.any():  # the middle is inside the body or, for a ring, at most 1.5 radii off
                assert np.abs(s.depth_m[mask] - o.z).max() < 1.8 * o.spec.radius
        assert set(np.unique(s.semantic[s.instance == 0])) <= {0, 1}


def test_instance_map_agrees_with_one_ray_per_pixel(scenes):
    """Brute force: every object is intersected with the ray of every pixel centre."""
    for s in scenes[:6]:
        camera = Camera(s.spec.camera)
        rays = np.stack(camera.rays((0, 128), (0, 128), 128))  # [3, H*W]
        depths = [np.full(128 * 128, MISS)]
        for o in s.spec.objects:
            c, n = np.cos(-o.yaw), np.sin(-o.yaw)
            turn = np.array([[c, -n, 0], [n, c, 0], [0, 0, 1]])
            origin = turn @ (np.array(camera.position) - (o.x, o.y, 0))
            depths.append(solid(o.shape, o.radius).hit(tuple(origin), tuple(turn @ rays)))
        nearest = np.argmin(depths, axis=0).reshape(128, 128)
        assert (nearest != s.instance).mean() < 0.02  # edges only
        inside = (nearest == s.instance) & (nearest > 0)
        deepest = np.min(depths, axis=0).reshape(128, 128)
        assert np.median(np.abs(deepest - s.depth_m)[inside]) < 0.002


def test_depth_of_the_floor_is_that_of_the_plane(scenes):
    s = scenes[0]
    camera = Camera(s.spec.camera)
    rays = camera.rays((0, 128), (0, 128), 128)
    points = camera.points(rays, s.depth_m.astype(np.float64).ravel())
    floor = (s.semantic == 0).ravel()
    wall = (s.semantic == 1).ravel()
    np.testing.assert_allclose(points[2][floor], 0, atol=1e-5)
    np.testing.assert_allclose(points[1][wall], 1.75, atol=1e-5)


@pytest.mark.parametrize("shape", tabletop.SHAPES)
def test_solids_are_hit_where_their_implicit_function_changes_sign(shape):
    """Marching along each ray in tiny steps finds the same first surface point."""
    r = 0.2
    body = solid(shape, r)
    rng = np.random.default_rng(3)
    origin = np.array([0.4, -3.0, 1.8])
    aim = np.stack([rng.uniform(-1.1 * r, 1.1 * r, 300), np.zeros(300), rng.uniform(0, 2 * r, 300)])
    d = aim - origin[:, None]
    t = body.hit(tuple(origin), tuple(d))
    steps = np.linspace(0.8, 1.2, 8001)
    p = origin[:, None, None] + d[:, :, None] * steps
    inside = _inside(shape, r, *p)
    first = np.where(inside.any(1), steps[inside.argmax(1)], MISS)
    agree = (t < MISS) == inside.any(1)
    assert agree.mean() > 0.98  # grazing rays may differ
    both = (t < MISS) & inside.any(1)
    close = np.abs(t - first)[both] * 3.5 < 0.004  # 1 mm steps and the tolerance of the ring
    assert close.mean() > 0.98
    hit = tuple(origin[k] + t[both] * d[k][both] for k in range(3))
    normal = np.stack(body.normal(hit))
    np.testing.assert_allclose((normal**2).sum(0), 1, atol=1e-6)
    assert ((normal * d[:, both]).sum(0) < 0.1).mean() > 0.99  # they face the camera


def _inside(shape, r, x, y, z):
    across = np.hypot(x, y)
    box = np.maximum(np.abs(x), np.abs(y))
    if shape == "ball":
        return x**2 + y**2 + (z - r) ** 2 < r**2
    if shape == "cube":
        return (box < 0.82 * r) & (z > 0) & (z < 1.64 * r)
    if shape == "cylinder":
        return (across < 0.8 * r) & (z > 0) & (z < 1.7 * r)
    if shape == "cone":
        return (z > 0) & (across < r - z / 2.1)
    if shape == "pyramid":
        return (z > 0) & (box < 1.05 * r * (1 - z / (1.9 * r)))
    return np.hypot(across - 0.72 * r, z - 0.3 * r) < 0.3 * r


def test_spec_survives_json(scenes):
    for s in scenes[:4]:
        again = tabletop.SceneSpec.from_dict(json.loads(json.dumps(s.spec.to_dict())))
        assert again == s.spec


def test_removing_an_object_leaves_the_rest_of_the_picture_alone():
    spec = tabletop.sample_scene(5)
    before = tabletop.render(spec)
    o = spec.objects[-1]
    after = tabletop.render(dataclasses.replace(spec, objects=spec.objects[:-1]))
    # A shadow reaches a few radii along the light; the far side of the picture must not move.
    moved = np.abs(before.image.astype(int) - after.image).max(-1) > 0
    camera = Camera(spec.camera)
    u, v, _ = camera.project((o.x, o.y, o.radius))
    x, y = (u + 1) * 64, (v + 1) * 64
    rows, columns = np.nonzero(moved)
    assert moved.any()
    assert np.hypot(rows - y, columns - x).max() < 60
    same = before.instance < len(spec.objects)
    same &= before.instance == after.instance
    assert (same | (before.instance == len(spec.objects))).mean() > 0.995
    recoloured = dataclasses.replace(o, color="red" if o.color != "red" else "blue")
    edited = tabletop.render(dataclasses.replace(spec, objects=(*spec.objects[:-1], recoloured)))
    assert (edited.instance == before.instance).all()
    assert (edited.depth_m == before.depth_m).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**40))
def test_every_seed_gives_a_sound_scene(seed):
    s = tabletop.render(seed)
    assert 4 <= len(s.objects) <= 9
    rng = random.Random(seed)
    for e in tabletop.expressions(s, rng, 1):
        assert s.objects[e.target].visible_px >= tabletop.TARGET_PX
    assert set(tabletop.caption(s, rng).split()) <= set(tabletop.WORDS)


def test_bad_input_says_what_was_expected():
    with pytest.raises(ValueError, match=r"seed must be an integer >= 0, got -1"):
        tabletop.render(-1)
    with pytest.raises(ValueError, match=r"seed must be an integer >= 0, got 'a'"):
        tabletop.sample_scene("a")
    spec = tabletop.sample_scene(0)
    with pytest.raises(ValueError, match=r"ObjectSpec.color must be one of red, .* got 'pink'"):
        dataclasses.replace(spec.objects[0], color="pink")
    with pytest.raises(ValueError, match="Tabletop version '1', got '2'"):
        tabletop.SceneSpec.from_dict({**spec.to_dict(), "version": "2"})
    with pytest.raises(ValueError, match="missing or unknown fields"):
        tabletop.SceneSpec.from_dict({"version": "1"})


def test_empty_table():
    spec = dataclasses.replace(tabletop.sample_scene(0), objects=())
    s = tabletop.render(spec)
    assert s.instance.max() == 0
    assert tabletop.caption(s, random.Random(0)) == ""
    assert tabletop.expressions(s, random.Random(0)) == []
    assert tabletop.tags(s) == []


def test_statistics_of_the_world():
    """The specified figures, on 300 scenes; bounds are at least three standard errors wide."""
    objects = []
    visible = []
    for seed in range(3_000_000, 3_000_300):
        s = tabletop.render(seed)
        objects += s.objects
        visible.append(sum(o.visible_px >= tabletop.VISIBLE_PX for o in s.objects))
    fraction = np.array([o.visible_fraction for o in objects])
    pixels = np.array([o.visible_px for o in objects])
    assert 6.0 < np.mean(visible) < 6.8
    assert 0.17 < (fraction < 0.9).mean() < 0.27
    assert 0.08 < (fraction < 0.7).mean() < 0.15
    assert 0.02 < (fraction < 0.4).mean() < 0.06
    assert 350 < pixels.mean() < 430
    assert 270 < np.median(pixels) < 350
