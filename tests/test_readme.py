"""What README and docs tell a reader to type works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

from vpd.cli import COMMANDS, main
from vpd.tasks.store import shipped

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# These take minutes or more, or data of others; the test of their own command runs them small.
LONG = {"demo", "pretrain", "sweep", "bench", "data make", "data check"}
LONG |= {name for name in COMMANDS if name.split()[0] == "train"}


def blocks(language: str) -> list:
    found = []
    for page in PAGES:
        texts = re.findall(
            rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        )
        found += [pytest.param(text, id=f"{page.stem}-{i}") for i, text in enumerate(texts)]
    return found


def commands(program: str) -> list[str]:
    """Lines of shell blocks that start with a program; continued lines joined, comments dropped."""
    lines = []
    for block in blocks("bash"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
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
    name = next(n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS)
    if name in LONG and "--dry-run" not in words:
        words = [*name.split(), "--help"]
    else:
        task = words[words.index("--task") + 1] if "--task" in words else "refer"
        free = "--model" in words or name in ("info", "convert", "classes build")
        needs_model(line if free else f"vpd-mini-{task}")
    if name in ("evaluate", "ground", "probe"):
        words += ["--limit", "2"]
    code = main(words)
    assert code == 0, capsys.readouterr().err


def test_readme_has_the_two_commands():
    assert commands("make")[:2] == ["demo", "test"]


@pytest.mark.parametrize("line", commands("make"))
def test_make_command_exists(line):
    subprocess.run(["make", "-n", *shlex.split(line)], cwd=ROOT, capture_output=True, check=True)


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
