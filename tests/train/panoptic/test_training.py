"""``vpd train panoptic``: what it learns, that interrupted runs end as whole ones, and that parts
of a batch add up to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dense_toys import (
    cached_as_uncached,
    curve,
    few_scenes,
    interrupted_and_whole,
    recipe,
    weights,
    write_foundation,
)
from panoptic_toys import HEAD, same_points
from processes import together

import vpd
from vpd.cli.parser import read
from vpd.data import tabletop
from vpd.losses import PointDraws, mask2former_loss, match

pytest.importorskip("lightning")
from vpd.data.dense import dense_names
from vpd.data.tabletop.pictures import THINGS
from vpd.train.dense.footprint import dense_footprint
from vpd.train.dense.run import samples
from vpd.train.dense.table import ResidentTable
from vpd.train.dense.training import DenseRun
from vpd.train.distributed import Processes
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.parts import Shares
from vpd.train.panoptic import criterion
from vpd.train.panoptic.model import build_panoptic
from vpd.train.panoptic.segments import objects_of, segment_numbers
from vpd.train.panoptic.training import RECIPE, PanopticTrainConfig, PanopticTraining, train

pytestmark = pytest.mark.usefixtures("few_scenes")

CLASSES = tuple(zip(tabletop.CLASSES, THINGS, strict=True))
FROZEN = {"freeze": "unet", "text_adapter": False}
TAGGING = {"queries": 4, "blocks": 1, "heads": 4, "mlp_ratio": 2.0, "image": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("panoptic")
    fields = recipe(write_foundation(folder / "foundation"), folder / "cache")
    return {**fields, **HEAD, "points": 64, "schedule": {"kind": "poly"}}


@pytest.fixture
def config_of(base, tmp_path):
    def make(**changes) -> PanopticTrainConfig:
        return read(PanopticTrainConfig, {**base, "out": str(tmp_path / "run"), **changes})

    return make


def training(config, **options) -> PanopticTraining:
    """One on four scenes."""
    model = build_panoptic(config, CLASSES)
    data = samples("panoptic", config.data, progress=False)[0]
    batch, seed = config.loop.batch, config.seed
    table = ResidentTable(model, data, segment_numbers, batch, seed, flip=True, **options)
    segments = RECIPE.present(config, data)
    run = DenseRun(model, table, present=lambda picture: segments(data[picture]))
    return PanopticTraining(config, run)


def test_it_learns_and_writes_a_model_that_segments(config_of, tmp_path):
    config = config_of(**FROZEN)
    loop = replace(config.loop, steps=60, lr=5e-3, val_every=30, clip=0.1)
    metrics = train(replace(config, loop=loop, upsample_finest=True))
    run = tmp_path / "run"
    losses = curve(run, "loss")
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    for name in ("classes", "masks", "dice"):
        values = curve(run, name)
        assert sum(values[-10:]) < sum(values[:10]), name
    assert len(curve(run, "PQ")) == 2
    assert {"PQ", "SQ", "RQ", "PQ_things", "PQ_stuff", "mAP", "AP50", "mIoU"} <= set(metrics)
    assert metrics["n"] == 6
    model = vpd.load(run / "model")
    assert model.config.things == THINGS
    assert (model.config.max_size, model.config.map_scale) == (160, 8)
    assert model(np.zeros((50, 70, 3), np.uint8)).ids.shape == (50, 70)
    kept = weights(run)
    assert any(key.startswith("head.predictor.") for key in kept)


@pytest.mark.parametrize("change", [FROZEN, {"augment": "full"}], ids=["cached", "augmented"])
def test_interrupted_training_equals_uninterrupted(config_of, tmp_path, change):
    interrupted_and_whole(PanopticTraining, train, config_of(**change), tmp_path)


def test_training_from_cached_features_equals_training_without(config_of, tmp_path):
    cached_as_uncached(train, config_of(**FROZEN), tmp_path)


def test_parts_of_a_batch_add_up_to_it(config_of, monkeypatch):
    monkeypatch.setattr(criterion, "mask2former_loss", same_points)
    config = config_of()
    config = replace(config, loop=replace(config.loop, batch=4, micro_batch=1))
    module = training(config)
    module.table._data["targets"][1] = 0  # one picture has no segment

    def step(shares: list[Shares]) -> tuple[float, list[torch.Tensor]]:
        module.zero_grad()
        total = 0.0
        # What all processes have together is known: one after another stands for each of them.
        for share in shares:
            for number in range(share.passes):
                loss = module.losses(0, share.part(number))["loss"]
                loss.backward()
                total += float(loss.detach())
        return total, [p.grad for p in module.parameters() if p.grad is not None]

    loss, grads = step([Shares(4)])
    whole = module._criterion.whole
    batch = module.table.draw(0)
    out = module.run.model.masks(module.features(batch))
    labels, masks = module.objects(batch)
    assert sorted(len(own) for own in labels)[0] == 0
    want = same_points(out.logits, out.masks, labels, masks, points=64, num_masks=None)
    assert loss == pytest.approx(float(want.total.detach()), rel=1e-4)
    assert whole.masks == sum(len(own) for own in labels)
    for shares in ([Shares(4, 1)], [Shares(4, 2, Processes(2, rank)) for rank in range(2)]):
        in_parts, grads_of_parts = step(shares)
        assert in_parts == pytest.approx(loss, rel=1e-4)
        for got, grad in zip(grads_of_parts, grads, strict=True):
            torch.testing.assert_close(got, grad, rtol=1e-3, atol=1e-5)


def test_a_batch_without_any_segment(config_of):
    module = training(config_of())
    module.table._data["targets"].zero_()
    found = module.losses(0, slice(0, 2))
    found["loss"].backward()
    assert torch.isfinite(found["loss"])
    assert float(found["masks"]) == float(found["dice"]) == 0
    grads = [p.grad for p in module.run.model.head.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert any(grad.any() for grad in grads)  # "no object" is learnt


def test_more_segments_than_queries(config_of):
    module = training(config_of(num_queries=2))
    found = module.losses(0, slice(0, 2))
    want = sum(len(own) for own in module.objects(module.table.draw(0))[0])
    assert module._criterion.whole.masks == want > 4
    assert module._criterion.whole.weight == 4  # every query has a segment
    assert torch.isfinite(found["loss"])


def test_a_loss_by_hand(config_of):
    """Of one picture, on all points of the head's grid, matched by the cost as it is written in the
    paper."""
    config = config_of(loop={**config_of().loop.__dict__, "batch": 1, "steps": 1})
    module = training(config)
    batch = module.table.draw(0)
    with torch.no_grad():
        out = module.run.model.masks(module.features(batch))
        (labels,), (masks,) = module.objects(batch)
    side = out.masks[-1].shape[-1]
    place = (torch.arange(side) + 0.5) / side
    points = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1).reshape(1, -1, 2)
    grid = (2 * points - 1).expand(len(masks), -1, -1)[:, None]
    target = F.grid_sample(masks[:, None].float(), grid, align_corners=False)
    y = target.flatten(1)
    total = 0.0
    for logits, grid in zip(out.logits, out.masks, strict=True):
        x, p = grid[0].flatten(1), logits[0].softmax(-1)
        bce = F.binary_cross_entropy_with_logits(
            x[:, None].expand(-1, len(y), -1), y.expand(len(x), -1, -1), reduction="none"
        ).mean(-1)
        s = x.sigmoid()
        dice = 1 - (2 * s @ y.T + 1) / (s.sum(1)[:, None] + y.sum(1) + 1)
        rows, columns = match(5 * bce + 5 * dice - 2 * p[:, labels])
        expected = torch.full((len(x),), len(CLASSES))
        expected[rows] = labels[columns]
        weight = torch.tensor([1.0] * len(CLASSES) + [0.1])
        entropy = F.cross_entropy(logits[0], expected, weight)
        own = 5 * bce[rows, columns].sum() + 5 * dice[rows, columns].sum()
        total += 2 * float(entropy) + float(own) / len(labels)

    def on_the_grid(*args, **options):
        matched = min(len(labels), len(out.logits[0][0]))
        draws = PointDraws(
            points, points.expand(matched, -1, -1), points[:, :0].expand(matched, -1, -1)
        )
        count = points.shape[1]
        chosen = {"points": count, "oversample": 1.0, "uncertain": 1.0}
        return mask2former_loss(*args, **{**options, **chosen}, draws=[draws] * len(args[0]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(criterion, "mask2former_loss", on_the_grid)
        assert float(module.losses(0, slice(0, 1))["loss"]) == pytest.approx(total, rel=1e-4)


def test_points_depend_on_the_rows_of_a_step_alone(config_of):
    module = training(config_of())

    def loss(step, rows):
        torch.rand(3)  # what was drawn before does not matter
        return float(module.losses(step, rows)["loss"])

    assert loss(0, slice(0, 2)) == loss(0, slice(0, 2))
    other = PanopticTraining(replace(module.config, seed=9), module.run)
    assert loss(0, slice(0, 2)) != float(other.losses(0, slice(0, 2))["loss"])


def test_views_are_segments_and_their_mirror_images(config_of):
    module = training(config_of())
    data = samples("panoptic", module.config.data, progress=False)[0]
    mirrored = 0
    for step in range(8):
        batch = module.table.draw(step)
        labels, masks = objects_of(
            batch.targets, [data[i].read_label().segments for i in batch.pictures]
        )
        for view, own, seen in zip(batch.views.tolist(), labels, masks, strict=True):
            want, true = data[view // 2].read_label().targets()
            true = true[:, ::2, ::2].flip(-1) if view % 2 else true[:, ::2, ::2]
            kept = true.flatten(1).any(1)
            if view % 2 == 0:
                assert torch.equal(own, want[kept])
                assert (seen == true[kept]).float().mean() > 0.99
            mirrored += view % 2
    assert mirrored


@pytest.mark.parametrize("condition", ["tagging", "oracle", "uncond"])
def test_conditions_train(config_of, tmp_path, condition):
    options = {"oracle": {"attention": []}, "tagging": {"tagging": TAGGING}}.get(condition, {})
    metrics = train(config_of(condition=condition, freeze="unet", **options))
    assert metrics.get("oracle", 0.0) == float(condition == "oracle")
    assert ("tags/mAP" in metrics) == (condition == "tagging")
    model = vpd.load(tmp_path / "run" / "model")
    assert model.config.condition == condition
    if condition == "tagging":
        assert len(curve(tmp_path / "run", "tag_loss")) == 4


@pytest.mark.parametrize("targets", ["crop", "image"])
def test_classes_that_the_tagging_adapter_should_find(config_of, targets):
    module = training(config_of(condition="tagging", tagging={**TAGGING, "targets": targets}))
    batch = module.table.draw(0)
    for row, picture in zip(module._to_find(batch), batch.pictures, strict=True):
        classes = {segment.category for segment in module.run.present(picture)}
        assert set(row.nonzero()[:, 0].tolist()) == classes


def test_neither_norms_nor_biases_decay(config_of):
    module = training(config_of())
    (groups,) = (
        optimizer.param_groups for optimizer in [module.configure_optimizers()["optimizer"]]
    )
    decayed = {id(p): group["weight_decay"] > 0 for group in groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        norm_or_bias = parameter.dim() < 2 or name.endswith(".bias")
        assert decayed[id(parameter)] != norm_or_bias, name


def test_odises_schedule():
    config = PanopticTrainConfig(loop=LoopConfig(steps=92188, warmup=250))
    factor = config.schedule.factor
    assert factor(0, 92188, 250) == pytest.approx(0.067)
    assert factor(125, 92188, 250) == pytest.approx((1 + 0.067) / 2)
    assert [factor(s, 92188, 250) for s in (250, 81944, 81955, 88776, 88790)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )


def test_what_a_training_needs():
    """At full size; nothing is computed."""
    loop = LoopConfig(batch=1, precision="32", ema=None)
    head = {"channels": 256, "num_queries": 100, "encoder_layers": 6, "decoder_layers": 9}
    config = PanopticTrainConfig(
        weights="sd.safetensors", loop=loop, crop=512, freeze="unet", text_adapter=False,
        attention=(), points=12544, norm_groups=32, **head,
    )  # fmt: skip
    names = dense_names("panoptic", "coco-panoptic")
    assert (len(names), names[0], names[132]) == (133, "person", "rug-merged")
    found = dense_footprint(config, RECIPE.empty, RECIPE.blank, names)
    with torch.device("meta"):
        original = vpd.Mask2FormerHead(vpd.Mask2FormerConfig((320, 640, 1280, 1280), 133))
    count = sum(p.numel() for p in original.parameters())
    assert sum(part.in_optimizer for part in found.parts) == count
    finer = dense_footprint(
        replace(config, upsample_finest=True), RECIPE.empty, RECIPE.blank, names
    )
    assert finer.step > 1.2 * found.step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"condition": "oracle"}, r"attention must be \(\) with condition=oracle"),
        ({"points": 0}, "points must be at least 1, got 0"),
        ({"dice_weight": -1.0}, "dice_weight must not be negative, got -1.0"),
        ({"uncertain": 1.5}, "uncertain must be within"),
        ({"schedule": {"warmup_from": 2.0}}, r"warmup_from must be in \[0, 1\], got 2.0"),
    ],
)
def test_mistakes_are_named(config_of, change, message):
    with pytest.raises(ValueError, match=message):
        config_of(**change)


def test_data_without_segments_is_refused(config_of):
    config = config_of()
    with pytest.raises(ValueError, match="data set for panoptic must be one of tabletop, coco-pan"):
        samples("panoptic", replace(config.data, name="nyuv2"))
    with pytest.raises(ValueError, match="coco-panoptic is read from disk"):
        samples("panoptic", replace(config.data, name="coco-panoptic"))


def run_in_parts(base: dict, out) -> dict[str, float]:
    config = read(PanopticTrainConfig, {**base, "out": str(out)})
    loop = replace(config.loop, batch=4, micro_batch=2, lr=2e-4)
    with few_scenes():
        return train(replace(config, loop=loop, augment="full"))


@pytest.mark.slow
def test_two_processes_train_as_one(base, tmp_path):
    one = run_in_parts(base, tmp_path / "one")
    first, second = together(run_in_parts, tmp_path / "out", base, tmp_path / "two")
    assert first == second
    assert first["n"] == one["n"]
    losses = [curve(tmp_path / name, "loss") for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
