"""The C++ programs of examples/cpp, built against an installed vpd without Python."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vpd
from vpd.data import tabletop
from vpd.images import to_network
from vpd.tasks.store import find

ROOT = Path(__file__).parent.parent
MODEL = "vpd-mini-refer"
# The environment's own, if it has one: it made the build.
CMAKE = shutil.which("cmake", path=os.pathsep.join([sysconfig.get_path("scripts"), os.defpath]))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CMAKE is None, reason="needs CMake")]


def run(*command: str | Path) -> str:
    # One thread: sums in another order differ in their last bits.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("LD_LIBRARY_PATH", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Where the newest build of this checkout is installed to."""
    built = [
        path
        for path in (ROOT / "build").glob("*/libvpd_core.so")
        if path.parent.name != "sanitize" and (path.parent / "cmake_install.cmake").is_file()
    ]
    if not built:
        pytest.skip("needs a build in build/: make ctest")
    newest = max(built, key=lambda path: path.stat().st_mtime)
    where = tmp_path_factory.mktemp("prefix")
    run(CMAKE, "--install", newest.parent, "--prefix", where)
    return where


@pytest.fixture(scope="module")
def programs(prefix, tmp_path_factory):
    """The folder of the built examples."""
    build = tmp_path_factory.mktemp("examples")
    torch_dir = Path(torch.__file__).parent
    source = ROOT / "examples" / "cpp"
    options = [f"-DCMAKE_PREFIX_PATH={prefix}", f"-DVPD_TORCH_DIR={torch_dir}"]
    run(CMAKE, "-S", source, "-B", build, *options)
    run(CMAKE, "--build", build, "--parallel", "2")
    return build


@pytest.mark.parametrize(
    ("name", "printed"),
    [("features", "map at stride 4 [1, 77, 8, 8]"), ("custom_head", "loss ")],
)
def test_small_examples_run(programs, name, printed):
    assert printed in run(programs / name)


def test_no_python_is_linked(programs):
    for name in ("features", "custom_head", "refer_tensors", "vpd_refer"):
        if (programs / name).exists():
            linked = run("ldd", programs / name)
            assert "libvpd_core" in linked
            assert "not found" not in linked
            assert "python" not in re.sub(r"=> \S+", "", linked)


def test_the_same_tensor_gives_the_same_bits(programs, tmp_path):
    text = "the small cube left of the ball"
    scene = tabletop.render(3_000_000)
    image = to_network(scene.image, 128)
    save_file({"image": image}, tmp_path / "in.safetensors")
    out = tmp_path / "out.safetensors"
    run(programs / "refer_tensors", find(MODEL), tmp_path / "in.safetensors", text, out)
    found = load_file(out)

    model = vpd.load(MODEL)
    with threads(1), torch.inference_mode():
        expected = model.logits(image, model.encode_text([text]))
        probability = model(scene.image, text).probability
    assert torch.equal(found["logits"], expected)
    assert torch.equal(found["probability"], torch.from_numpy(probability))


def test_a_picture_of_tabletop_is_segmented_as_in_python(programs, tmp_path):
    program = programs / "vpd_refer"
    if not program.exists():
        pytest.skip("needs OpenCV for C++ (libopencv-dev)")
    import cv2

    text = "the small cube left of the ball"
    scene = tabletop.render(3_000_000)
    cv2.imwrite(str(tmp_path / "image.png"), scene.image[:, :, ::-1])
    out, mask = tmp_path / "out.png", tmp_path / "mask.png"
    printed = run(program, tmp_path / "image.png", text, out, "--mask", mask)
    with threads(1):
        expected = vpd.load(MODEL)(scene.image, text).mask
    assert f"mask: {expected.sum()} of {expected.size} pixels" in printed
    assert np.array_equal(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) > 0, expected)
    drawn = cv2.imread(str(out))[:, :, ::-1]
    changed = (drawn != scene.image).any(-1)
    assert changed[expected].mean() > 0.95
    assert not changed[~expected].any()


def test_mistakes_are_named(programs, tmp_path):
    def error(*arguments: str | Path) -> str:
        done = subprocess.run(
            [programs / "refer_tensors", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 1
        return done.stderr

    assert "none/config.json" in error(tmp_path / "none", "in", "text", "out")
    assert "expected a model of task 'refer'" in error(find("vpd-mini"), "in", "text", "out")
