"""What is distributed: the source archive, the wheel built from it, and that wheel in an
environment that holds nothing else but what it requires.

The build is kept in build/packaging, so that a second run compiles only what changed.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement

import vpd
from vpd.data import tabletop
from vpd.tasks.store import shipped

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "build" / "packaging"
LEFT_OUT = ("tests/golden/", "benchmarks/results/")
TEXT = "the small cube left of the ball"
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path | None = None, fails: bool = False) -> str:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_LIBRARY_PATH")
    }
    environment |= {"OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert (done.returncode != 0) == fails, (
        f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stderr if fails else done.stdout


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The unpacked source archive. What did not change keeps its time, so that it is not compiled
    again."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT]
    run(*command, cwd=folder)
    (archive,) = folder.glob("*.tar.gz")
    assert archive.name == f"vpd-{vpd.__version__}.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    new, kept = folder / f"vpd-{vpd.__version__}", KEPT / "sources"
    for name in files(new):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        if not (kept / name).exists() or not filecmp.cmp(new / name, kept / name, shallow=False):
            shutil.copyfile(new / name, kept / name)
    for name in files(kept) - files(new):
        (kept / name).unlink()
    return kept


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-build-isolation", "--no-deps", f"--config-settings=build-dir={KEPT / 'build'}"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, sources, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"vpd-{vpd.__version__}.dist-info/METADATA").decode()
    return Parser().parsestr(text)


def required(lines: list[str], extras: set[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, lines):
        mark = requirement.marker
        if mark is None or any(mark.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


@pytest.fixture(scope="module")
def clean(wheel, metadata, tmp_path_factory):
    """The folder of programs of an environment with the wheel and, of all that is installed here,
    what its metadata requires without extras."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    wanted, seen = list(required(metadata.get_all("Requires-Dist"), set())), set()
    while wanted:
        requirement = wanted.pop()
        key = (requirement.name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        found = distribution(requirement.name)
        wanted += required(found.requires or [], set(requirement.extras))
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__", "bin"}:
            link = site / top
            if not link.is_symlink():
                link.symlink_to(found.locate_file(top))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    run(*pip, "install", "--no-deps", wheel, cwd=folder)
    run(*pip, "check", cwd=folder)
    return folder / "bin"


def test_sources_are_those_of_the_checkout(sources):
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    tracked = {name for name in listed.splitlines() if (ROOT / name).is_file()}
    expected = {name for name in tracked if not name.startswith(LEFT_OUT)}
    assert files(sources) - {"PKG-INFO"} == expected


def test_wheel_holds_the_package_and_nothing_else(wheel, sources):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        about = {name for name in names if name.startswith(f"vpd-{vpd.__version__}.dist-info/")}
        package = {name.removeprefix("vpd/") for name in names - about}
        compiled = package - files(sources / "vpd")
        assert package - compiled == files(sources / "vpd")
        for name in package - compiled:
            assert archive.read(f"vpd/{name}") == (sources / "vpd" / name).read_bytes(), name
    core = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    headers = {n for n in files(sources / "csrc") if n.endswith(".h") and not n.startswith("bind/")}
    cmake = {name for name in compiled if name.startswith("cmake/")}
    assert compiled - cmake == {
        *(core, "libvpd_core.so", "build.json"),
        *(f"include/{name}" for name in headers),
    }
    assert {"cmake/vpd-config.cmake", "cmake/vpd-targets.cmake", "cmake/torch.cmake"} <= cmake
    assert {"py.typed", "_C.pyi", "zoo/vpd-mini-refer/model.safetensors"} <= package
    assert {Path(name).name for name in about} >= {"METADATA", "RECORD", "LICENSE"}
    assert wheel.stat().st_size < 100 * 2**20


def test_metadata(metadata, wheel):
    assert metadata["Version"] == vpd.__version__
    assert {"train", "ray", "bench", "notebooks", "dev"} <= set(metadata.get_all("Provides-Extra"))
    assert "torch==2.13.*" in metadata.get_all("Requires-Dist")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "# vpd" in metadata.get_payload()
    # Neither for any Python nor for any machine.
    assert f"cp{sys.version_info.major}{sys.version_info.minor}" in wheel.name
    assert "none-any" not in wheel.name


def test_the_wheel_is_what_runs(clean, tmp_path):
    found = json.loads(run(clean / "vpd", "info", "--json", cwd=tmp_path))
    assert found["native"]["core"].startswith(str(clean.parent))
    assert found["folders"]["package"].startswith(str(clean.parent))
    assert found["native"]["built: torch"] == torch.__version__.split("+")[0]
    assert set(found["models"]) == set(shipped())


def test_a_prediction_is_that_of_the_checkout(clean, tmp_path):
    scene = tabletop.render(3_000_000)
    cv2.imwrite(str(tmp_path / "image.png"), scene.image[:, :, ::-1])
    run(clean / "vpd", "predict", "image.png", TEXT, "--out", "out", cwd=tmp_path)
    (path,) = (tmp_path / "out").glob("*mask.png")
    expected = vpd.load("vpd-mini-refer")(scene.image, TEXT).mask
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0, expected)


def test_every_module_imports_or_names_its_extra(clean, tmp_path):
    """A missing package of an extra is the only reason for which a module may not import."""
    code = """
import importlib, json, pkgutil, vpd
missing = {}
for module in pkgutil.walk_packages(vpd.__path__, "vpd.", onerror=lambda name: None):
    if module.name.endswith(("__main__", "._C", ".libvpd_core")):  # vpd._load imports these
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        missing[module.name] = error.name or str(error)
print(json.dumps(missing))
"""
    missing = json.loads(run(clean / "python", "-c", code, cwd=tmp_path).splitlines()[-1])
    extras = r"lightning|gradio|ray|scipy|tensorboard|h5py"
    assert all(re.match(extras, name) or "'vpd[" in name for name in missing.values()), missing


def test_cpp_finds_the_installed_package(clean, tmp_path):
    scripts = sysconfig.get_path("scripts")
    cmake = shutil.which("cmake", path=os.pathsep.join([scripts, os.defpath]))
    prefix = run(clean / "vpd", "info", "cmake", cwd=tmp_path).strip()
    assert prefix.startswith(str(clean.parent))
    options = [f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Debug"]
    run(cmake, "-S", ROOT / "examples" / "cpp", "-B", tmp_path / "cpp", *options)
    run(cmake, "--build", tmp_path / "cpp", "--target", "features")
    assert "map at stride 4 [1, 77, 8, 8]" in run(tmp_path / "cpp" / "features")


def test_another_pytorch_is_named_with_the_command_that_mends_it(clean, tmp_path):
    facts = Path(json.loads(run(clean / "vpd", "info", "--json"))["native"]["core"]).parent
    text = (facts / "build.json").read_text()
    (facts / "build.json").write_text(text.replace(torch.__version__.split("+")[0], "2.12.1"))
    try:
        said = run(clean / "python", "-c", "import vpd; vpd.UNet", cwd=tmp_path, fails=True)
        lines = run(clean / "vpd", "predict", "image.png", TEXT, cwd=tmp_path, fails=True)
    finally:
        (facts / "build.json").write_text(text)
    for message in (said.splitlines()[-1], lines):
        assert f"found PyTorch {torch.__version__}" in message
        assert "built for PyTorch 2.12.1" in message
        assert "pip install 'torch==2.12.*'" in message
    assert lines.startswith("vpd: error: ")
    assert lines.count("\n") == 1
