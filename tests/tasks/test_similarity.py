"""Clean against noisy, compared with a plain loop: a row at a time, in NumPy."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny
import torch

import vpd
from vpd.images import to_network
from vpd.noise import image_key
from vpd.protocol import NoiseSpec
from vpd.tasks.evaluate import under
from vpd.tasks.maps import context, noisy_latents
from vpd.tasks.samples import refer_samples
from vpd.tasks.similarity import similarity
from vpd.tasks.work import counted
from vpd.tokens import EOS, tokenize

SCENES = 3


@pytest.fixture(scope="module")
def split():
    return tiny.val_scenes(SCENES)


def parts_of(model, pixels, text, noise) -> dict:
    ids = tokenize(text, model.config.token_length).ids
    end = ids[0].tolist().index(EOS)
    with torch.no_grad():
        (latents,) = noisy_latents(model, pixels, [noise])
        out = model.unet(latents, noise.timestep, context(model, ids), taps=vpd.Taps())
    parts = {("features", 2**level): f for level, f in enumerate(out.features)}
    parts |= {("attention", s): maps for s, maps in out.attention.items()}
    parts |= {("words", s): maps[:, 1:end] for s, maps in out.attention.items()}
    return {("latents", 1): latents, **parts}


def plain(model, split, clean, noise) -> dict:
    """(part, stride) -> list of (cosine, relative L2)."""
    found: dict = {}
    for picture in refer_samples(split):
        pixels = to_network(picture.image, model.config.image_size)
        for number, question in enumerate(picture.questions):
            a = parts_of(model, pixels, question.text, clean)
            b = parts_of(model, pixels, question.text, noise)
            for key in a:
                if key[0] == "latents" and number:
                    continue
                x, y = (one[key].numpy().ravel() for one in (a, b))
                cosine = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
                distance = np.sqrt(((y - x) ** 2).sum() / (x * x).sum())
                found.setdefault(key, []).append((cosine, distance))
    return found


@pytest.mark.parametrize(
    ("kind", "noise"),
    [
        ("refer", NoiseSpec.preset("latent_match", noise_t=300)),
        ("refer", NoiseSpec.preset("pixel", noise_t=100)),
        ("foundation", NoiseSpec.preset("embed_only", noise_t=500, latent_scale=0.8)),
    ],
)
def test_equals_a_plain_loop(split, kind, noise):
    model = (tiny.segmenter(3) if kind == "refer" else tiny.foundation(3)).double()
    clean = NoiseSpec(embed_t=noise.embed_t, latent_scale=noise.latent_scale)
    found = similarity(model, split, [noise], batch=4, progress=False)
    want = plain(model, split, clean, noise)
    assert {(row.part, row.stride) for row in found.rows} == want.keys()
    for row in found.rows:
        cosines, distances = np.array(want[row.part, row.stride]).T
        assert row.n == len(cosines)
        assert row.cosine == pytest.approx(cosines.mean(), abs=1e-9)
        assert row.cosine_std == pytest.approx(cosines.std(ddof=1), abs=1e-9)
        assert row.relative_l2 == pytest.approx(distances.mean(), abs=1e-9)
        assert row.relative_l2_std == pytest.approx(distances.std(ddof=1), abs=1e-9)
    latents = found.row(noise, "latents", 1)
    assert latents.n == SCENES
    assert (latents.cosine < 0.999) == (noise.noise_space != "none")


def test_latents_follow_the_closed_form(split):
    """Orthogonal noise of the same length would leave sqrt(alpha_bar) of the cosine."""
    model = tiny.segmenter(0)
    noise = NoiseSpec.preset("latent_match", noise_t=300)
    found = similarity(model, split, [noise], limit=1, progress=False).row(noise, "latents", 1)
    pixels = to_network(np.array(split.images[0]), 64)
    with torch.no_grad():
        z = model.encode_image(pixels) * model.config.scale_factor
    from vpd.noise import draw_noise

    eps = draw_noise(z, noise, [image_key(pixels[0])])
    bar = float(vpd.diffusion.NoiseSchedule().alphas_cumprod[300])
    noisy = bar**0.5 * z + (1 - bar) ** 0.5 * eps
    assert found.relative_l2 == pytest.approx(float((noisy - z).norm() / z.norm()), rel=1e-5)
    assert found.relative_l2_std == 0


def test_shares_its_work_and_reports_itself(split, tmp_path):
    model = under(tiny.segmenter(2), NoiseSpec.preset("latent_match", noise_t=900))
    steps = (0, 100, 500)
    noises = [NoiseSpec.preset("latent_match", noise_t=t) for t in steps]
    with counted(model) as work:
        found = similarity(model, split, noises, strides=(4,), progress=False)
    assert (work.images, work.stems) == (SCENES, SCENES * 3)  # clean is t = 0
    zero = [row for row in found.rows if row.noise.noise_t == 0]
    assert [row.cosine for row in zero] == pytest.approx([1.0] * len(zero))
    assert [row.relative_l2 for row in zero] == [0.0] * len(zero)
    assert {row.stride for row in found.rows if row.part == "attention"} == {4}
    files = found.write(tmp_path)
    ends = ("jsonl", "md", "cosine.png", "l2.png")
    assert [path.name for path in files] == [f"similarity.{end}" for end in ends]
    records = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert records == found.records() == found.to_dict()["rows"]
    assert {r["t"] for r in records} == set(steps)
    assert "| F4 " in files[1].read_text()
    assert all(cv2.imread(str(path)) is not None for path in files[2:])


@pytest.mark.parametrize(
    ("noises", "options", "message"),
    [
        ([], {}, "at least one noise protocol"),
        ([NoiseSpec()], {"strides": (1,)}, "stride 1"),
        ([NoiseSpec()], {"batch": 0}, "batch must be at least 1"),
    ],
)
def test_bad_requests_are_named(split, noises, options, message):
    with pytest.raises(ValueError, match=message):
        similarity(tiny.segmenter(), split, noises, progress=False, **options)
