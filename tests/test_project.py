"""The project around the code: light import, configs, versions, tools, links."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import vpd
from vpd import _build
from vpd.cli import COMMANDS
from vpd.cli.parser import parse

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def find(pattern: str, file: str) -> str:
    match = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
    assert match, f"{file}: no {pattern}"
    return match.group(1)


def test_import_is_light():
    heavy = {
        "cv2",
        "ftfy",
        "jsonargparse",
        "lightning",
        "matplotlib",
        "pycocotools",
        "transformers",
    }
    code = (
        "import sys, torch; before = set(sys.modules); import vpd; new = set(sys.modules) - before;"
        f"print(sorted(new & {heavy})); print(len(new))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, count = out.stdout.splitlines()
    assert loaded == "[]"
    assert int(count) <= 5, "import vpd loads more than itself"


@pytest.mark.parametrize("name", vpd.__all__)
def test_public_name_exists(name):
    assert getattr(vpd, name) is not None
    assert name in dir(vpd)


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'UNetz'"):
        vpd.UNetz  # noqa: B018


def test_version_is_the_same_everywhere():
    """Python's metadata and CMake read it where it stands."""
    version = vpd.__version__
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["scikit-build"]["metadata"]["version"]["input"] == "vpd/__init__.py"
    assert find(r'^__version__ = "([\d.]+)"$', "vpd/__init__.py") == version
    assert _build.facts()["vpd"] == version
    assert find(r"^version: (.+)$", "CITATION.cff") == version
    assert find(r"^## \[(Unreleased|" + re.escape(version) + r")\]", "CHANGELOG.md")


def test_pytorch_version_is_the_same_everywhere():
    pin = find(r"torch==(\d+\.\d+)\.", "Makefile")
    assert f"torch=={pin}.*" in PYPROJECT["build-system"]["requires"]
    assert f"torch=={pin}.*" in PYPROJECT["project"]["dependencies"]
    assert _build.facts()["torch"].startswith(f"{pin}.")


def test_hooks_use_the_linters_of_the_lint_extra():
    pinned = dict(
        line.split("==")
        for line in PYPROJECT["project"]["optional-dependencies"]["lint"]
        if "==" in line
    )
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    used = dict(d.split("==") for hook in hooks for d in hook["additional_dependencies"])
    shared = set(used) & set(pinned)
    assert shared == {"ruff", "clang-format", "codespell"}
    assert {name: used[name] for name in shared} == {name: pinned[name] for name in shared}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_parses_its_help(name, capsys):
    module, function = COMMANDS[name][0].split(":")
    with pytest.raises(SystemExit) as stop:
        parse(name, getattr(importlib.import_module(module), function), ["--help"])
    assert stop.value.code in (0, None)
    assert f"usage: vpd {name}" in capsys.readouterr().out


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))
def test_config_parses(path):
    """configs/pretrain/ is for `vpd pretrain`, configs/experiments/ for `vpd sweep`, the folder of
    each task for its `vpd train`."""
    task = path.parent.name
    own = {"pretrain": "pretrain", "experiments": "sweep", "refer": "train"}
    own["open"] = "train open-panoptic"
    name = own.get(task, f"train {task}")
    module, function = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), function)
    values, _ = parse(name, command, ["--config", str(path)])
    assert values["config"].out.endswith(f"{path.parent.name}-{path.stem}")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not target.startswith(("http", "#")):
            assert (path.parent / target.split("#")[0]).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("script", [".ci/run", *sorted(p.name for p in ROOT.glob("tools/*.sh"))])
def test_shell_script_parses(script):
    path = ROOT / script if "/" in script else ROOT / "tools" / script
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & 0o111, f"{path} is not executable"


def test_make_targets_exist():
    help_text = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = [line.split(":")[0] for line in help_text.splitlines()]
    assert {"demo", "test", "test-all", "fuzz", "bench", "lint", "format", "clean"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_shipped_files_are_small():
    sizes = {p: p.stat().st_size for p in (ROOT / "vpd" / "zoo").rglob("*") if p.is_file()}
    most = {"vpd-mini": 20e6, "vpd-mini-refer": 14e6}
    assert all(size <= most.get(path.parent.name, 4e6) for path, size in sizes.items())
    assert sum(sizes.values()) <= 55e6


def test_extras_are_resolved_without_pip():
    extras = PYPROJECT["project"]["optional-dependencies"]
    script = [sys.executable, ROOT / "tools" / "extras.py"]
    done = subprocess.run([*script, "dev"], capture_output=True, text=True, check=True)
    found = done.stdout.splitlines()
    assert len(found) == len(set(found))
    assert not any(line.startswith("vpd[") for line in found)
    for name in ("train", "ray", "bench", "test", "lint", "docs"):
        assert {line for line in extras[name] if not line.startswith("vpd[")} <= set(found)
    done = subprocess.run([*script, "everything"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "got everything" in done.stderr


@pytest.mark.slow
def test_core_gives_tensors_without_torch_imported_before():
    code = "from vpd import _C; t = _C.Tokenizer(PATH)(['a'], 4)[0]; print(tuple(t.shape))"
    path = ROOT / "vpd" / "zoo" / "merges.txt"
    done = subprocess.run(
        [sys.executable, "-c", code.replace("PATH", repr(str(path)))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "(1, 4)\n", done.stderr
