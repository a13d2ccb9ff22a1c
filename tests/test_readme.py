"""What README and docs tell a reader to type works."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import docs_commands
import pytest
import torch
import yaml
from docs_commands import (
    ELSEWHERE,
    NOT_HERE,
    SMALL,
    blocks,
    commands,
    name_of,
    said_of,
    tiny,
    unboxed,
)  # fmt: skip

from vpd.cli import COMMANDS, main
from vpd.cli.parser import parse
from vpd.data import make_tabletop
from vpd.tasks.store import shipped

ROOT = docs_commands.ROOT
IMAGES = ROOT / "docs" / "images"


def texts(language: str) -> list:
    return [pytest.param(text, id=name) for name, text in blocks(language).items()]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what examples speak of: a picture, names of classes, a checkout's configs."""
    from vpd.data import tabletop

    cv2.imwrite(str(tmp_path / "image.png"), tabletop.render(3_000_000).image[:, :, ::-1])
    (tmp_path / "names.txt").write_text("cube\nball; sphere\n")
    tags = {"ADE_val_03000000.png": "cube | red | ball", "3000000": "cube", "3000001": "cone"}
    tags |= {str(2_000_000 + i): "cube | cone" for i in range(4)}  # the first for training
    (tmp_path / "tags.json").write_text(json.dumps(tags))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs_model(text: str) -> None:
    for name in re.findall(r"vpd-mini[\w-]*", text):
        if name not in shipped():
            pytest.skip(f"{name} is not shipped yet")


def needs_own_model(words: list[str]) -> None:
    """Skips where the model that a command names, or takes by default, is not shipped."""
    task = words[words.index("--task") + 1] if "--task" in words else "refer"
    free = "--model" in words or name_of(words) in ("info", "convert", "classes build", "serve")
    needs_model(shlex.join(words) if free else f"vpd-mini-{task}")


def is_long(words: list[str]) -> bool:
    return (name_of(words) in SMALL or "--launcher" in words) and "--dry-run" not in words


@pytest.mark.parametrize("code", texts("python"))
def test_python_runs(code, desk):
    needs_model(code)
    grad = torch.is_grad_enabled()
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})
    assert torch.is_grad_enabled() == grad


@pytest.mark.parametrize("line", commands())
def test_command_is_run_somewhere(line):
    """Each has one place: a reason why it cannot run, another test, or this file."""
    place = said_of(line, ELSEWHERE)
    assert place is None or said_of(line, NOT_HERE) is None
    if place is None and said_of(line, NOT_HERE) is None:
        program, *words = shlex.split(line)
        assert program in ("vpd", "make", "python", "pip"), f"{line}: nothing runs {program}"
        assert program != "vpd" or name_of(words)
        assert program != "make" or words == ["demo"]
    elif place is not None:
        assert (ROOT / place).is_file()


@pytest.mark.parametrize("pattern", [*NOT_HERE, *ELSEWHERE])
def test_every_exception_is_needed(pattern):
    assert any(re.search(pattern, line) for line in commands())


def test_commands_stand_in_blocks_of_bash():
    assert unboxed() == []


@pytest.mark.parametrize("line", commands("vpd"))
def test_vpd_command_runs(line, desk, capsys):
    """Long ones and those that need what is not here: their options and configs are read."""
    words = shlex.split(line)[1:]
    name = name_of(words)
    if said_of(line, NOT_HERE) or is_long(words):
        module, function = COMMANDS[name][0].split(":")
        command = getattr(importlib.import_module(module), function)
        parse(name, command, words[len(name.split()) :])
        return
    needs_own_model(words)
    if name in ("evaluate", "evaluate edit", "ground", "probe"):
        words += ["--limit", "2"]
    code = main(words)
    assert code == 0, capsys.readouterr().err


def small(words: list[str], desk: Path) -> list[str]:
    """A long command in small: a config of sweeps or pre-training is written anew, with the first
    of the sweep's cells; any other gets options on top."""
    name = name_of(words)
    if name not in ("sweep", "pretrain"):
        return [*words, *shlex.split(SMALL.get(name, "--limit 2" if name == "evaluate" else ""))]
    config = tiny(yaml.safe_load(Path(words[words.index("--config") + 1]).read_text()))
    config |= {"progress": False, "out": str(desk / "out")}
    (desk / "small.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = [name, "--config", "small.yaml"]
    if name == "sweep":
        from vpd.cli.sweep import sweep
        from vpd.train.sweep.grid import cells_of

        values, _ = parse(name, sweep, words[1:])
        words += ["--cell", cells_of(values["config"])[0].name]
    return words


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        line
        for line in commands("vpd")
        if is_long(shlex.split(line)[1:]) and not said_of(line, NOT_HERE) and " serve" not in line
    ],
)
def test_long_vpd_command_runs_in_small(line, desk, capsys, monkeypatch):
    monkeypatch.setenv("VPD_CACHE", str(desk / "cache"))
    words = shlex.split(line)[1:]
    if words[:2] == ["data", "check"]:
        layout = "ip2p" if "ip2p" in words else "ade20k"
        make_tabletop("data", ["val"], {"val": 2}, layout=layout, workers=1, progress=False)
    if name_of(words) == "data edits":
        triplet = {"caption": "a red cube", "edit": "make it blue", "output": "a blue cube"}
        (desk / "triplets.jsonl").write_text(json.dumps(triplet) + "\n")
    code = main(small(words, desk))
    # A set of two scenes is not whole, which a check says.
    assert code == 0 or (code == 1 and words[0] == "data"), capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [line for line in commands("vpd") if " serve" in line and not said_of(line, NOT_HERE)]
)
def test_serve_runs_until_it_is_interrupted(line, desk):
    pytest.importorskip("gradio")
    words = shlex.split(line)[1:]
    needs_own_model(words)
    command = [sys.executable, "-m", "vpd.cli", *words, *shlex.split(SMALL["serve"])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        said = next((one for one in process.stderr if "http://127.0.0.1:" in one), None)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert said is not None
    assert process.returncode in (0, 130)


def test_readme_has_the_two_commands():
    assert commands("make")[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("line", commands("make"))
def test_make_command_exists(line):
    subprocess.run(
        ["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, check=True
    )


@pytest.mark.slow
def test_make_demo_draws(tmp_path):
    """Where `make` has built what it needs; it ends in minutes otherwise."""
    if not (ROOT / ".venv" / ".stamps" / "vpd").exists():
        pytest.skip("needs make build")
    done = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "P@0.5" in done.stdout
    assert len(list((ROOT / "demo-out").glob("scene-*.png"))) > 50


@pytest.mark.parametrize("line", [one for one in commands("python") if not said_of(one, ELSEWHERE)])
def test_script_exists(line):
    script = ROOT / shlex.split(line)[1]
    script = script / "__main__.py" if script.is_dir() else script
    compile(script.read_text(), str(script), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("line", [one for one in commands("pip") if not said_of(one, ELSEWHERE)])
def test_extra_is_one_of_the_package(line):
    """What it asks for is installed here, so pip finds it without an index."""
    options = ["--dry-run", "--no-index", *shlex.split(line)[2:]]
    command = [sys.executable, "-m", "pip", "install", *options]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stderr


def test_build_tools_are_those_that_make_installs():
    (line,) = (one for one in commands("pip") if "scikit-build-core" in one)
    makefile = (ROOT / "Makefile").read_text()
    assert all(f'"{name}>=' in makefile or f" {name} " in makefile for name in line.split()[2:])


@pytest.mark.slow
def test_pictures_of_the_docs_are_drawn(tmp_path):
    command = [sys.executable, ROOT / "tools" / "pictures.py", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert {"tabletop.png", "demo.png", "panoptic.png", "clusters.png"} <= drawn
    for name in drawn:
        here, there = cv2.imread(str(tmp_path / name)), cv2.imread(str(IMAGES / name))
        assert here.shape == there.shape, f"{name} is not the one in docs/images"


@pytest.mark.slow
@pytest.mark.parametrize("line", [one for one in commands("python") if "benchmarks/" in one])
def test_benchmark_runs(line):
    """Its short form; limits of time are for a quiet machine, agreement holds on any."""
    command = [sys.executable, *shlex.split(line)[1:], "--quick", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout)["checks"], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("code", texts("cpp"))
def test_cpp_compiles(code, tmp_path):
    if "::operator()" in code:
        pytest.skip("an excerpt of csrc/")
    headers = Path(torch.__file__).parent / "include"
    (tmp_path / "example.cpp").write_text(code)
    includes = ["-isystem", headers, "-isystem", headers / "torch/csrc/api/include"]
    compiler = sysconfig.get_config_var("CXX").split()[0]
    flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}"]
    subprocess.run([compiler, *flags, *includes, tmp_path / "example.cpp"], check=True)
