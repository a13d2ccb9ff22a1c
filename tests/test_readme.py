"""What README and docs tell a reader to type works."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from vpd.cli import COMMANDS, main
from vpd.cli.parser import parse
from vpd.tasks.store import shipped

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# These take minutes or more, or data of others: their options and configs are read here, the test
# of their own command runs them small.
LONG = {"demo", "pretrain", "sweep", "bench", "data make", "data edits", "data check", "serve"}
LONG |= {name for name in COMMANDS if name.split()[0] == "train"}
FOREIGN = {"--weights", "--root", "--launcher"}


def blocks(language: str) -> list:
    found = []
    for page in PAGES:
        texts = re.findall(
            rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        )
        found += [pytest.param(text, id=f"{page.stem}-{i}") for i, text in enumerate(texts)]
    return found


def commands(program: str) -> list[str]:
    """Lines of shell blocks that start with a program; continued lines joined, comments and
    settings of the environment dropped."""
    lines = []
    for block in blocks("bash"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                del words[0]
            if words and words[0] == program:
                lines.append(shlex.join(words[1:]))
    return list(dict.fromkeys(lines))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what examples speak of: a picture, names of classes, a checkout's configs."""
    import cv2

    from vpd.data import tabletop

    cv2.imwrite(str(tmp_path / "image.png"), tabletop.render(3_000_000).image[:, :, ::-1])
    (tmp_path / "names.txt").write_text("cube\nball; sphere\n")
    (tmp_path / "tags.json").write_text('{"ADE_val_03000000.png": "cube | red | ball"}')
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs_model(text: str) -> None:
    for name in re.findall(r"vpd-mini[\w-]*", text):
        if name not in shipped():
            pytest.skip(f"{name} is not shipped yet")


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, desk):
    needs_model(code)
    grad = torch.is_grad_enabled()
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})
    assert torch.is_grad_enabled() == grad


@pytest.mark.parametrize("line", commands("vpd"))
def test_vpd_command_runs(line, desk, capsys):
    words = shlex.split(line)
    name = next(n for n in (" ".join(words[:count]) for count in (3, 2, 1)) if n in COMMANDS)
    # What `vpd info` plans need not be there.
    foreign = bool(FOREIGN & set(words)) and words[0] != "info"
    if foreign or (name in LONG and "--dry-run" not in words):
        module, function = COMMANDS[name][0].split(":")
        command = getattr(importlib.import_module(module), function)
        parse(name, command, words[len(name.split()) :])
        return
    task = words[words.index("--task") + 1] if "--task" in words else "refer"
    free = "--model" in words or name in ("info", "convert", "classes build")
    needs_model(line if free else f"vpd-mini-{task}")
    if name in ("evaluate", "evaluate edit", "ground", "probe"):
        words += ["--limit", "2"]
    code = main(words)
    assert code == 0, capsys.readouterr().err


def test_readme_has_the_two_commands():
    assert commands("make")[:2] == ["demo", "test"]


@pytest.mark.parametrize("line", commands("make"))
def test_make_command_exists(line):
    subprocess.run(["make", "-n", *shlex.split(line)], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("line", commands("python"))
def test_script_exists(line):
    script = ROOT / shlex.split(line)[0]
    assert script.exists()
    compile(script.read_text(), str(script), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("line", [one for one in commands("python") if "benchmarks/" in one])
def test_benchmark_runs(line):
    """Its short form; limits of time are for a quiet machine, agreement holds on any."""
    command = [sys.executable, *shlex.split(line), "--quick", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout)["checks"], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("cpp"))
def test_cpp_compiles(code, tmp_path):
    if "::operator()" in code:
        pytest.skip("an excerpt of csrc/")
    headers = Path(torch.__file__).parent / "include"
    (tmp_path / "example.cpp").write_text(code)
    includes = ["-isystem", headers, "-isystem", headers / "torch/csrc/api/include"]
    compiler = sysconfig.get_config_var("CXX").split()[0]
    flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}"]
    subprocess.run([compiler, *flags, *includes, tmp_path / "example.cpp"], check=True)
