"""Clusters of features: against the U-Net's own blocks, interpolated features, and Tabletop's
objects."""

from __future__ import annotations

from math import comb

import cv2
import numpy as np
import panoptic_toys
import pytest
import tiny
import torch
import torch.nn.functional as F

import vpd
from vpd.data import tabletop
from vpd.images import to_network
from vpd.kmeans import kmeans, principal_components
from vpd.models.unet import Taps
from vpd.noise import encode_under
from vpd.protocol import NoiseSpec
from vpd.tasks import store
from vpd.tasks.clusters import default_block
from vpd.tokens import tokenize

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
IMAGE = cv2.resize(IMAGE[:8, :12], (60, 40))


@pytest.fixture(scope="module")
def foundation():
    return tiny.foundation(1)


@torch.no_grad()
def blocks_of(model, names, noise, caption=""):
    """The U-Net's blocks at 64 px, each place of length 1."""
    pixels = to_network(IMAGE, 64)
    (latents,) = encode_under(model.vae, pixels, [noise], model.config.scale_factor)
    states = model.text(tokenize(caption, 16).ids).hidden
    taps = Taps(features=False, attention=(), block_inputs=names, block_outputs=names)
    found = model.unet(latents, noise.timestep, states, taps=taps).blocks
    return {name: F.normalize(block, dim=1)[0] for name, block in found.items()}


def test_clusters_are_of_the_default_blocks_input(foundation):
    found = vpd.cluster_features(IMAGE, K=5, model=foundation, words="a red cube")
    noise = NoiseSpec(latent_scale=foundation.config.scale_factor)
    assert (found.blocks, found.noises) == (("output_blocks.5:input",), (noise,))
    features = blocks_of(foundation, ("output_blocks.5",), noise, "a red cube")
    points = features["output_blocks.5:input"].flatten(1).T
    want = kmeans(points, 5)
    np.testing.assert_array_equal(found.grid, want.labels.reshape(8, 8))
    np.testing.assert_allclose(found.centroids, want.centroids, atol=1e-6)
    assert found.inertia == pytest.approx(want.inertia, rel=1e-5)
    rows, columns = (np.arange(40) * 2 + 1) * 8 // 80, (np.arange(60) * 2 + 1) * 8 // 120
    np.testing.assert_array_equal(found.labels, found.grid[rows[:, None], columns])
    assert (found.labels.dtype, found.image.shape) == (np.uint8, (40, 60, 3))
    np.testing.assert_array_equal(found.mask(2), found.labels == 2)
    with pytest.raises(KeyError, match=r"no cluster 5; they are 0\.\.4"):
        found.mask(5)
    assert repr(found) == (
        "ClusterResult(60 x 40 px, 5 clusters of 8 x 8 features, output_blocks.5:input)"
    )


def test_default_block_of_stable_diffusion_is_odises():
    assert default_block(vpd.UNetConfig.sd15()) == "output_blocks.8"
    assert default_block(vpd.UNetConfig(channel_mult=(1,), num_res_blocks=2)) == "output_blocks.2"


def test_bilinear_is_interpolation_of_features(foundation):
    found = vpd.cluster_features(IMAGE, K=6, model=foundation, upsample="bilinear", seed=3)
    noise = found.noises[0]
    features = blocks_of(foundation, ("output_blocks.5",), noise)["output_blocks.5:input"]
    large = F.interpolate(features[None].double(), (40, 60), mode="bilinear")[0].flatten(1).T
    centroids = torch.tensor(found.centroids).double()
    want = torch.cdist(large, centroids).argmin(1).reshape(40, 60).numpy()
    assert (found.labels == want).mean() > 0.998  # all but where two are equally near
    near = vpd.cluster_features(IMAGE, K=6, model=foundation, seed=3)
    np.testing.assert_array_equal(found.grid, near.grid)
    assert (found.labels != near.labels).any()


def test_blocks_and_noises_are_put_together_on_the_finest_grid(foundation):
    noises = [NoiseSpec(noise_space="latent", noise_t=t, embed_t="match") for t in (5, 300)]
    blocks = (7, "output_blocks.3:output", "middle_block")
    found = vpd.cluster_features(IMAGE, blocks, 4, model=foundation, noise=noises)
    assert found.blocks == (
        "output_blocks.7:input", "output_blocks.3:output", "middle_block:input",
    )  # fmt: skip
    assert found.noises == tuple(noises)
    names = ("output_blocks.7", "output_blocks.3", "middle_block")
    parts = []
    for noise in noises:
        features = blocks_of(foundation, names, noise)
        for name in found.blocks:
            sized = F.interpolate(features[name][None], (16, 16), mode="bilinear")
            parts.append(F.normalize(sized, dim=1)[0].flatten(1).T)
    points = torch.cat(parts, dim=1)
    np.testing.assert_allclose(points.norm(dim=1), 6**0.5, rtol=1e-5)
    assert found.centroids.shape == (4, points.shape[1])
    assert (found.grid.shape, found.labels.shape) == ((16, 16), (40, 60))


def test_principal_components_are_clustered(foundation):
    plain = vpd.cluster_features(IMAGE, K=4, model=foundation)
    found = vpd.cluster_features(IMAGE, K=4, model=foundation, pca=3)
    features = blocks_of(foundation, ("output_blocks.5",), plain.noises[0])
    points = features["output_blocks.5:input"].flatten(1).T
    want = kmeans(principal_components(points, 3), 4)
    np.testing.assert_array_equal(found.grid.ravel(), want.labels)
    assert (plain.centroids.shape, found.centroids.shape) == ((4, points.shape[1]), (4, 3))


def test_seeds(foundation):
    first, again, other = (
        vpd.cluster_features(IMAGE, K=9, model=foundation, seed=seed, restarts=1)
        for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.inertia == again.inertia != other.inertia


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (130, 70)])
@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_any_size_and_one_colour(foundation, size, upsample):
    image = np.full((*size, 3), 90, np.uint8)
    found = vpd.cluster_features(image, K=3, model=foundation, upsample=upsample)
    assert found.labels.shape == size
    assert np.isfinite(found.inertia)


def test_an_input_that_the_networks_cannot_take_is_enlarged(tmp_path):
    torch.manual_seed(0)
    parts = {**tiny.PARTS, "image_size": 70}
    model = vpd.tasks.foundation.Foundation(vpd.tasks.foundation.FoundationConfig(**parts)).eval()
    store.save(model, tmp_path / "odd")
    found = vpd.cluster_features(IMAGE, K=3, model=tmp_path / "odd")
    assert found.grid.shape == (12, 12)  # of 96 px


def test_task_models_say_what_they_say():
    refer = tiny.segmenter(1)
    one = vpd.cluster_features(IMAGE, K=4, model=refer, words="the red cube")
    assert one.noises == (refer.config.noise,)
    fields = {"token_length": 16, "image": tiny.CLIP.image, "attention": ()}
    implicit = panoptic_toys.segmenter(condition="implicit", **fields)
    with torch.no_grad():
        for parameter in implicit.adapter.parameters():
            parameter.normal_()
    found = vpd.cluster_features(IMAGE, 6, 4, model=implicit)
    pixels = to_network(IMAGE, 64)
    with torch.no_grad():
        told = implicit.context([None], implicit.look(pixels))
        assert told.time_bias is not None
        out = implicit.unet(
            implicit.encode_image(pixels),
            implicit.config.noise.timestep,
            told.states,
            time_bias=told.time_bias,
            taps=Taps(features=False, attention=(), block_inputs=("output_blocks.6",)),
        )
    points = F.normalize(out.blocks["output_blocks.6:input"], dim=1)[0].flatten(1).T
    np.testing.assert_array_equal(found.grid.ravel(), kmeans(points, 4).labels)
    with pytest.raises(ValueError, match="takes no words"):
        vpd.cluster_features(IMAGE, K=4, model=implicit, words="a cube")


def test_bad_requests_are_named(foundation):
    def refused(*arguments, error=ValueError, **options):
        with pytest.raises(error) as caught:
            vpd.cluster_features(IMAGE, *arguments, **{"model": foundation, **options})
        return str(caught.value)

    assert "no block 'output_blocks.8'" in refused(8)
    assert "output_blocks.8:output: 5:both" in refused("5:both")
    assert "at least one block" in refused([])
    assert "number of clusters must be in 1..64, the number of points, got 65" in refused(None, 65)
    assert "got 0" in refused(None, 0)
    assert "'bilinear', got 'cubic'" in refused(upsample="cubic")
    assert "dims must be in 1..48" in refused(pca=100)
    assert "at least one noise protocol" in refused(noise=[])
    assert "no U-Net" in refused(model=torch.nn.Linear(2, 2), error=TypeError)
    assert "caption, got 3" in refused(words=3, error=TypeError)


def test_features_that_are_not_finite_are_named():
    broken = tiny.foundation(2)
    with torch.no_grad():
        next(broken.unet.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"points must be finite, got -?nan"):
        vpd.cluster_features(IMAGE, K=3, model=broken)


def test_files_and_figures(foundation, tmp_path):
    found = vpd.cluster_features(IMAGE, K=5, model=foundation)
    shown = cv2.imread(str(found.save(tmp_path / "a.png")))[:, :, ::-1].astype(int)
    assert shown.shape == (40, 60, 3)
    added = (shown - 0.45 * IMAGE)[found.labels == 1] / 0.55
    assert np.abs(added - added.mean(0)).max() < 2  # one colour
    arrays = np.load(found.save(tmp_path / "a.npz"))
    assert set(arrays) == {"image", "labels", "grid", "centroids", "inertia", "blocks"}
    np.testing.assert_array_equal(arrays["labels"], found.labels)
    assert arrays["blocks"].tolist() == ["output_blocks.5:input"]
    assert cv2.imread(str(found.save(tmp_path / "a.figure.png"))) is not None
    with pytest.raises(ValueError, match="expected a name ending in"):
        found.save(tmp_path / "a.jpg")
    segments = panoptic_toys.segmenter()(IMAGE)
    figures = [found.show(), found.show(segments)]
    titles = [[text.get_text() for text in figure.texts] for figure in figures]
    assert titles == [
        ["image", "5 clusters", "clusters over it"], ["image", "5 clusters", "segments"],
    ]  # fmt: skip
    assert all(len(figure.axes) == 3 for figure in figures)
    assert figures[1].png() != figures[0].png()
    assert figures[0].png() == found.show().png()


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Hubert & Arabie 1985: pairs that both put together, against what chance would give."""
    cells = {}
    for pair in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
        cells[pair] = cells.get(pair, 0) + 1
    both = sum(comb(n, 2) for n in cells.values())
    in_a, in_b = (sum(comb(int(n), 2) for n in np.bincount(x.ravel())) for x in (a, b))
    chance = in_a * in_b / comb(a.size, 2)
    return (both - chance) / ((in_a + in_b) / 2 - chance)


def test_clusters_follow_the_objects_of_tabletop():
    scenes = tabletop.panoptic(tiny.val_scenes(6))
    truths = [scene.read_label().rows() for scene in scenes]
    model = vpd.load("vpd-mini")
    found = [vpd.cluster_features(s.read_image(), K=8, model=model).labels for s in scenes]
    own = np.array([adjusted_rand(a, b) for a, b in zip(found, truths, strict=True)])
    others = np.array(
        [adjusted_rand(a, b) for a, b in zip(found, truths[1:] + truths[:1], strict=True)]
    )
    shuffled = [np.random.default_rng(0).permutation(a.ravel()) for a in found]
    chance = np.array([adjusted_rand(a, b) for a, b in zip(shuffled, truths, strict=True)])
    assert np.abs(chance).max() < 0.01
    assert own.min() > 0.2
    assert own.mean() > others.mean() + 0.04  # all scenes have a wall above a floor
