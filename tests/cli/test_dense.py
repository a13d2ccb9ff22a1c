"""Classes and depth on the command line: predict (files, folders, videos), evaluate, classes
build."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny
import torch
import trees
from PIL import Image

import vpd
from vpd.data import tabletop
from vpd.data.tabletop.spec import CLASSES
from vpd.models.vit import ViTConfig
from vpd.tasks import store
from vpd.tasks.class_texts import ClassTexts, embed_classes, read_class_texts, templates
from vpd.tasks.evaluate_dense import evaluate_depth, evaluate_semantic
from vpd.tasks.evaluation import under
from vpd.tasks.maps import at_timestep


@pytest.fixture(scope="session")
def dense(tmp_path_factory):
    """A folder with a tiny random model of each task: ``semantic`` and ``depth``."""
    folder = tmp_path_factory.mktemp("dense")
    torch.manual_seed(0)
    parts = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
    options = {"channels": 16, "image_size": 64, "stride": 43}
    semantic = vpd.SemanticSegmenter(vpd.SemanticConfig(**parts, classes=CLASSES, **options))
    options = {"embed_dim": 8, "num_filters": (8, 8), "norm_groups": 4, "image_size": 64}
    depth = vpd.DepthEstimator(vpd.DepthConfig(**parts, scenes=("tabletop",), **options))
    for name, model in (("semantic", semantic), ("depth", depth)):
        model.class_embeddings.normal_()
        store.save(model.eval(), folder / name)
    return folder


def test_predict_classes(run_json, desk, dense):
    model = dense / "semantic"
    words = ["predict", "image.png", "--task", "semantic", "--model", model]
    found = run_json(*words, "--npz", "--scales", "1,1.25", "--flip", "true")
    (row,) = found["results"]
    assert [name.rpartition("/")[2] for name in row["files"]] == [
        "image.classes.png",
        "image.figure.png",
        "image.npz",
    ]
    expected = vpd.load(model)("image.png", scales=(1, 1.25), flip=True)
    stored = np.array(Image.open(row["files"][0]))
    assert np.array_equal(stored, expected.classes)
    assert row["shares"] == pytest.approx(expected.shares)


def test_predict_depth(run, run_json, desk, dense):
    model = dense / "depth"
    words = ["predict", "image.png", "--task", "depth", "--model", model, "--no-figure"]
    (row,) = run_json(*words, "--scene", "tabletop")["results"]
    expected = vpd.load(model)("image.png").depth_m
    stored = cv2.imread(row["files"][0], cv2.IMREAD_UNCHANGED)
    assert np.array_equal(stored, np.round(expected * 1000).astype(np.uint16))
    assert row["mean_m"] == pytest.approx(expected.mean())
    code, out, _ = run(*words)
    assert code == 0
    assert " m -> vpd-out/image.depth.png" in out


@pytest.mark.parametrize(("task", "ending"), [("semantic", "classes"), ("depth", "depth")])
def test_a_folder_with_a_broken_image(run, desk, dense, task, ending):
    folder = desk / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(desk / "image.png", folder / name)
    (folder / "broken.png").write_bytes((desk / "image.png").read_bytes()[:200])
    words = ["predict", folder, "--task", task, "--model", dense / task, "--no-figure"]
    for out in (desk / "out", folder, folder):  # results in a folder are no pictures of it
        code, said, err = run(*words, "--out", out)
        assert code == 1
        assert "broken.png" in err
        assert "broken.png" in said
        made = sorted(path.name for path in out.iterdir() if path.name.endswith(f".{ending}.png"))
        assert made == [f"a.{ending}.png", f"b.{ending}.png"]


def test_frames_of_a_video(run_json, refused, desk, dense):
    video = cv2.VideoWriter("film.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    frames = [np.full((48, 64, 3), 40 * i, np.uint8) for i in range(5)]
    for frame in frames:
        video.write(frame)
    video.release()
    words = ["--task", "depth", "--model", dense / "depth", "--no-figure"]
    found = run_json("predict", "film.avi", *words, "--every", 2)
    names = [row["files"][0] for row in found["results"]]
    assert names == [f"vpd-out/film.{i:06d}.depth.png" for i in (0, 2, 4)]
    expected = vpd.load(dense / "depth")(frames[2][..., ::-1].copy())
    stored = cv2.imread(names[1], cv2.IMREAD_UNCHANGED)
    assert np.abs(stored - expected.depth_m * 1000).max() < 200  # JPEG in between
    (desk / "broken.avi").write_bytes(b"RIFF")
    assert "broken.avi" in refused("predict", "broken.avi", *words)
    assert "none.mp4" in refused("predict", "none.mp4", *words)
    assert "every must be" in refused("predict", "film.avi", *words, "--every", 0)


def test_options_of_another_task_are_refused(refused, desk, dense, refer):
    words = ["predict", "image.png", "--task", "depth", "--model", dense / "depth"]
    assert "scales is an option of semantic, the task is depth" in refused(*words, "--scales", 1)
    assert "text is an option of refer" in refused("predict", "image.png", "a cube", *words[2:])
    assert "say what to look for" in refused("predict", "image.png", "--model", refer)
    message = refused("predict", "image.png", "--task", "depth", "--model", dense / "semantic")
    assert "expected a DepthEstimator" in message
    message = refused(*words, "--protocol", "pixel")
    assert "protocol is an option of refer, the task is depth" in message
    message = refused("predict", "image.png", "a cube", "--model", refer, "--protocol", "pixel")
    assert "protocol is that of steps" in message


@pytest.mark.parametrize(
    ("task", "option", "said"),
    [
        ("depth", "--text-blind", "text_blind is an option of refer, the model's task is depth"),
        ("depth", "--timesteps 0,100", "timesteps is an option of refer"),
        ("depth", "--attn-t-ensemble 0,100", "attn_t_ensemble is an option of refer"),
        ("depth", "--pictures 3", "pictures is an option of refer"),
        ("depth", "--t 100", "t needs a protocol"),
        ("depth", "--batch 4", "batch is no option of depth"),
        ("depth", "--per-class false", "per_class is an option of semantic"),
        ("depth", "--reduce-zero-label false", "reduce_zero_label is an option of semantic"),
        ("depth", "--scene attic", "scene is an option of data set 'folder', got 'tabletop'"),
        ("semantic", "--token-length 20", "token_length is an option of refer"),
        ("semantic", "--windows 2", "windows is an option of depth"),
        ("semantic", "--scene attic", "scene is an option of depth, the model's task is semantic"),
        ("semantic", "--protocol none", "unknown noise protocol 'none'"),
        ("refer", "--crop none", "crop is an option of depth"),
        ("refer", "--flip false", "flip is an option of semantic and depth"),
    ],
)
def test_evaluate_refuses_options_of_another_task(refused, dense, refer, task, option, said):
    model = refer if task == "refer" else dense / task
    assert said in refused("evaluate", "--model", model, *option.split())


def test_evaluate_under_another_protocol(run_json, dense):
    words = ["evaluate", "--model", dense / "semantic", "--limit", 2]
    noisy = ["--protocol", "latent_match", "--t", 300, "--image-norm", "none"]
    found = run_json(*words, *noisy, "--text-adapter", "false")
    model = vpd.load(dense / "semantic")
    noise = at_timestep("latent_match", 300, model.config.noise)
    model = under(model, noise, image_norm="none", text_adapter=False)
    samples = tabletop.semantic(tiny.val_scenes(2))
    expected = evaluate_semantic(model, samples, batch=16, progress=False)
    own = {k: v for k, v in found["metrics"].items() if not k.startswith("floor/")}
    assert own == pytest.approx(expected.metrics)
    assert found["protocol"]["noise"] == expected.protocol["noise"]
    assert "t = 300" in found["protocol"]["preset"]
    assert (found["protocol"]["image_norm"], found["protocol"]["text_adapter"]) == ("none", False)
    assert run_json(*words)["metrics"] != found["metrics"]


def test_a_text_adapter_that_a_model_does_not_have(refused, dense, tmp_path):
    model = vpd.load(dense / "semantic")
    store.save(under(model, text_adapter=False), tmp_path / "bare")
    message = refused("evaluate", "--model", tmp_path / "bare", "--text-adapter", "true")
    assert "trained without one" in message


def test_a_vision_transformer(run, run_json, refused, desk, tmp_path):
    """In the place of the U-Net: predicted, scored and refused what it does not have."""
    shape = ViTConfig(64, 96, 2, 1, image_size=32, patch_size=8, strides=(4, 8, 16, 32))
    config = vpd.SemanticConfig(
        vit=shape, classes=CLASSES, condition="uncond", attention=(), text_adapter=False,
        channels=8, image_size=(48, 64), stride=(32, 43),
    )  # fmt: skip
    store.save(vpd.SemanticSegmenter(config), tmp_path / "vit")
    words = ["--model", tmp_path / "vit"]
    run_json("predict", "image.png", "--task", "semantic", *words)
    found = run_json("evaluate", *words, "--limit", 2)
    protocol = found["protocol"]
    assert (protocol["backbone"], protocol["noise"], protocol["condition"]) == (
        "vit",
        None,
        "uncond",
    )
    assert protocol["vit"]["patch_size"] == 8
    assert protocol["test"]["window"] == [48, 64]
    code, said, _ = run("evaluate", *words, "--limit", 2)
    assert code == 0
    assert "2 images, features of a vision transformer" in said
    assert "got noise=" in refused("evaluate", *words, "--protocol", "latent_match", "--t", 100)
    assert "has none" in refused("evaluate", *words, "--text-adapter", "false")


def test_evaluate_a_folder(run, run_json, refused, dense, tmp_path):
    """Classes stored plus one, depth in 1/256 metres."""
    label = np.random.default_rng(0).integers(0, len(CLASSES) + 1, trees.SIZE).astype(np.uint8)
    trees.write(tmp_path / "images/a.png", trees.picture())
    trees.write(tmp_path / "masks/a.png", label)
    trees.write(tmp_path / "depths/a.png", trees.depth_mm(0))
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    words = ["evaluate", "--data", "folder", "--root", tmp_path, "--model"]
    classes = run_json(*words, dense / "semantic", "--reduce-zero-label", "true")
    folders = tmp_path / "images", tmp_path / "masks"
    samples = vpd.data.image_mask_folder(*folders, CLASSES, reduce_zero_label=True)
    expected = evaluate_semantic(vpd.load(dense / "semantic"), samples, progress=False)
    assert classes["metrics"] == pytest.approx(expected.metrics)
    code, _, err = run(*words, dense / "semantic")
    assert code == 2
    assert "expected labels 0..7" in err.splitlines()[-1]
    place = ["--scene", "tabletop"]
    depth = run_json(*words, dense / "depth", "--units-per-metre", 2560, *place)
    folders = tmp_path / "images", tmp_path / "depths"
    samples = vpd.data.image_depth_folder(*folders, 1 / 2560, "tabletop")
    expected = evaluate_depth(vpd.load(dense / "depth"), samples, progress=False)
    assert depth["metrics"] == pytest.approx(expected.metrics)
    assert "has 'room' besides" in refused(*words, dense / "depth")


def test_evaluate_classes(run_json, run, dense):
    model = dense / "semantic"
    words = ["evaluate", "--model", model, "--limit", 3, "--flip", "true", "--per-class", "true"]
    found = run_json(*words)
    samples = tabletop.semantic(tiny.val_scenes(3))
    expected = evaluate_semantic(
        vpd.load(model), samples, flip=True, per_class=True, batch=16, progress=False
    )
    floor = found["metrics"].pop("floor/mIoU")
    assert found["metrics"] == pytest.approx(expected.metrics)
    assert found["protocol"] == {"model": str(model), **expected.protocol}
    assert found["protocol"]["metrics"]["variant"] == "mmseg"
    assert 0 < floor < 20  # one of the eight classes everywhere
    assert "floor/mIoU" in run(*words)[1]


def test_evaluate_depth_from_disk(run_json, run, dense, tmp_path):
    frames = {"tabletop/00001": 1, "tabletop/00002": 2}
    trees.nyu(tmp_path / "official_splits/test", frames)
    (tmp_path / "scenes.txt").write_text("tabletop\n")
    words = ["evaluate", "--model", dense / "depth", "--data", "nyuv2", "--root", tmp_path]
    found = run_json(*words, "--split", "test", "--crop", "none")
    expected = evaluate_depth(
        vpd.load(dense / "depth"), vpd.data.nyuv2(tmp_path, "test"), progress=False
    )
    assert found["metrics"] == pytest.approx(expected.metrics)
    assert found["protocol"]["metrics"]["crop"] == "none"
    code, _, err = run(*words, "--split", "test")
    assert code == 2
    assert "480 x 640" in err.splitlines()[-1]  # the crop of NYUv2's own pictures


def test_the_mean_depth_map_is_a_floor():
    scenes = tabletop.load_split("val", workers=1, limit=4, depth=True, progress=False)
    samples = tabletop.depth(scenes)
    torch.manual_seed(0)
    parts = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
    options = {"embed_dim": 8, "num_filters": (8, 8), "norm_groups": 4, "image_size": 64}
    model = vpd.DepthEstimator(vpd.DepthConfig(**parts, scenes=("tabletop",), **options))
    found = evaluate_depth(model, samples, floors=samples, progress=False).metrics
    truth = np.stack([s.read_depth() for s in samples]).astype(np.float64)
    mean = truth.mean(0)  # each pixel is measured
    assert found["floor/abs_rel"] == pytest.approx((np.abs(truth - mean) / truth).mean(), rel=1e-5)


def test_memory_of_a_training(run_json, run, refused, desk, models):
    """As the function says it, which is compared with what is measured elsewhere."""
    from vpd.train.dense import depth, semantic
    from vpd.train.dense.footprint import dense_footprint
    from vpd.train.tasks import config_type

    words = ["--foundation", models / "foundation", "--crop", 64, "--freeze", "unet"]
    words += ["--loop.batch", 2, "--loop.precision", "32"]
    for task, recipe in (("semantic", semantic.RECIPE), ("depth", depth.RECIPE)):
        found = run_json("info", "memory", task, *words)
        fields = {"foundation": str(models / "foundation"), "crop": 64, "freeze": "unet"}
        config = config_type(task)(**fields)
        config = replace(config, loop=replace(config.loop, batch=2, precision="32"))
        names = CLASSES if task == "semantic" else ("tabletop",)
        expected = dense_footprint(config, recipe.empty, recipe.training, names).to_dict()
        assert found == json.loads(json.dumps(expected))
        assert {part["name"]: part["in_optimizer"] for part in found["parts"]}["unet"] == 0
    assert "memory, GB: " in run("info", "memory", "depth", *words)[1]
    (desk / "ade.yaml").write_text("data: {name: ade20k}\n")
    found = run_json("info", "memory", "semantic", "--config", "ade.yaml", *words)
    head = next(part for part in found["parts"] if part["name"] == "head")
    assert head["total"] == 7 * (9 * 64 + 2) * 64 + 65 * 150  # 64 channels, 150 classes
    (desk / "ade.yaml").write_text("data: {name: nyuv2}\n")
    message = refused("info", "memory", "semantic", "--config", "ade.yaml", *words)
    assert "must be one of tabletop, ade20k" in message


def test_classes_build(run_json, refused, desk, models):
    (desk / "names.txt").write_text("cube\nball; sphere\n")
    foundation = models / "foundation"
    found = run_json(
        "classes", "build", "c.safetensors", "--names", "names.txt", "--model", foundation
    )
    assert found["names"] == ["cube", "ball; sphere"]
    assert found["templates"] == 80
    read = read_class_texts("c.safetensors")
    text = store.load_foundation(foundation).text
    sphere, ball = embed_classes(text, ["sphere"]), embed_classes(text, ["ball"])
    assert torch.allclose(read.embeddings[1], (sphere + ball)[0] / 2, atol=1e-5)
    assert read.names == ("cube", "ball; sphere")
    assert read.encoder == found["encoder"]
    assert read.templates == templates("clip80")
    assert "either names" in refused("classes", "build", "c.safetensors")
    assert ".safetensors" in refused("classes", "build", "c.pth", "--names", "names.txt")


def test_embeddings_are_means_of_pooled_states():
    text = tiny.foundation().text
    found = embed_classes(text, ["cube"], ["a {}", "the {}"])
    with torch.no_grad():
        ids = vpd.tokenize(["a cube", "the cube"], length=64).ids
        want = text(ids).pooled.mean(0)
    assert torch.allclose(found[0], want, atol=1e-6)
    assert embed_classes(text, ["cube"], "bare").shape == found.shape
    with pytest.raises(ValueError, match="templates must be"):
        embed_classes(text, ["cube"], "clip81")
    with pytest.raises(ValueError, match="for the name"):
        embed_classes(text, ["cube"], ["a cube"])


def test_released_files_are_read_safely(tmp_path):
    table = torch.randn(3, 8)
    torch.save(table, tmp_path / "class_embeddings.pth")
    found = read_class_texts(tmp_path / "class_embeddings.pth", ["a", "b", "c"])
    assert torch.equal(found.embeddings, table)
    with pytest.raises(ValueError, match="expected 2 rows"):
        read_class_texts(tmp_path / "class_embeddings.pth", ["a", "b"])
    torch.save({"x": print}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth"):
        read_class_texts(tmp_path / "evil.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"broken\.safetensors"):
        read_class_texts(tmp_path / "broken.safetensors")
    path = ClassTexts(("a", "b", "c"), table).save(tmp_path / "c.safetensors")
    path.with_suffix(".json").write_text(json.dumps({"names": "?"}))
    with pytest.raises(ValueError, match="expected names, templates and encoder"):
        read_class_texts(path)
    table[0, 0] = float("nan")
    torch.save(table, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match="finite"):
        read_class_texts(tmp_path / "nan.pth")


def test_the_eighty_sentences():
    said = templates("clip80")
    assert len(set(said)) == 80
    assert all("{}" in one and one.endswith(".") for one in said)
    assert "a {} in a video game." in said
