"""What all commands share: help, errors in one line, JSON on standard output, light imports."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import typing

import pytest

import vpd
from vpd.cli import COMMANDS, main
from vpd.cli.answer import Answer, plain


def python(code: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}
    )


def test_overview_names_every_command(run):
    for words in ([], ["--help"], ["-h"]):
        code, out, _ = run(*words)
        assert code == 0
        assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run, name):
    code, out, _ = run(*name.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: vpd {name} ")
    assert "--json" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_explained(name):
    """Each option of a command has a text; those of configs stand in their dataclasses."""
    from vpd.cli.parser import build

    module, function = COMMANDS[name][0].split(":")
    function = getattr(__import__(module, fromlist=[function]), function)
    config = typing.get_type_hints(function).get("config")
    fields = {field.name for field in dataclasses.fields(config)} if config else set()
    for action in build(name, function)._actions:
        if action.dest.split(".")[0] not in fields:
            assert action.help, action.dest


def test_version(run):
    assert run("--version") == (0, f"vpd {vpd.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predct"], "did you mean 'predict'?"),
        (["data"], "vpd data takes one of: make, edits, check"),
        (["predict"], "required: image"),
        (["predict", "a.png", "a cube", "--modle", "x"], "--modle"),
        (["predict", "a.png", "a cube", "--dtype", "float16"], "float16"),
        (["predict", "nowhere.png", "a cube", "--model", "{refer}"], "nowhere.png: No such file"),
        (["predict", "image.png", "  ", "--model", "{refer}"], "the sentence is empty"),
        (["predict", "image.png", "a cube", "--model", "nothing"], "no model 'nothing'"),
        (["predict", "image.png", "a cube", "--model", "{refer}", "--device", "x"], "device must"),
        (
            ["predict", "image.png", "a cube", "--model", "{refer}", "--device", "cuda:9"],
            "'cuda:9' is not there",
        ),
        (["predict", "image.png", "a", "--model", "{refer}", "--token-length", "9"], "weights"),
        (["predict", "image.png", "a", "--weights", "none.ckpt"], "none.ckpt"),
        (["evaluate", "--model", "{foundation}", "--limit", "1"], "referring segmenter"),
        (["evaluate", "--model", "{refer}", "--data", "refcoco"], "--root"),
        (["evaluate", "--model", "{refer}", "--split", "vale"], "split must be one of"),
        (["evaluate", "--model", "{refer}", "--limit", "0"], "limit must be at least 1"),
        (["evaluate", "--model", "{refer}", "--t", "5"], "t needs a protocol"),
        (["evaluate", "--model", "{refer}", "--protocol", "x", "--limit", "1"], "vpd-2023"),
        (["data", "check", "refcoco", "--root", "none"], "none/refcoco/refs(unc).p"),
        (["data", "make", "tabletop", "--root", "out", "--splits", "pretrain"], "train-10k"),
        (["convert", "none.ckpt", "out.safetensors", "--to", "ldm"], "none.ckpt"),
        (["bench", "--folder", "none"], "source checkout"),
        (["demo", "--model", "{refer}", "--scenes", "0"], "at least 1"),
        (["train", "--loop.stps", "3"], "did you mean '--loop.steps'?"),
        (["train", "--loop.step", "3"], "did you mean '--loop.steps'?"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_code_2(refused, desk, models, words, message):
    words = [
        word.format(refer=models / "refer", foundation=models / "foundation") for word in words
    ]
    assert message in refused(*words)
    assert sorted(path.name for path in desk.iterdir()) == ["image.png"]


def test_debug_keeps_the_traceback(monkeypatch):
    monkeypatch.setenv("VPD_DEBUG", "1")
    with pytest.raises(ValueError, match="predict"):
        main(["predct"])


def test_config_file_with_overrides(run_json, refused, desk, refer):
    (desk / "a.yaml").write_text(f"model: {refer}\nlimit: 3\nbatch: 5\n")
    found = run_json("evaluate", "--config", "a.yaml", "--limit", "2")
    assert found["protocol"]["images"] == 2
    (desk / "b.yaml").write_text("limt: 3\n")
    assert "did you mean 'limit'?" in refused("evaluate", "--config", "b.yaml")
    (desk / "c.yaml").write_text("limit: [3\n")
    assert "config" in refused("evaluate", "--config", "c.yaml")
    assert "d.yaml" in refused("evaluate", "--config", "d.yaml")


def interrupted():
    raise KeyboardInterrupt


def chatty():
    print("loading annotations into memory")
    return Answer(plain({"x": float("nan")}), "")


def test_interruption(monkeypatch, capsys):
    monkeypatch.setattr("vpd.cli.info.info", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "vpd: interrupted\n"


def test_what_libraries_print_stays_off_standard_output(run_json, monkeypatch):
    monkeypatch.setattr("vpd.cli.info.info", chatty)
    assert run_json("info") == {"x": None}


def test_a_closed_pipe_is_no_error():
    code = "import os; os.close(1); r, w = os.pipe(); os.close(r); assert w == 1 or os.dup2(w, 1);"
    done = python(code + "from vpd.cli import main; import sys; sys.exit(main(['--help']))")
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_the_command_line_is_light():
    heavy = {"torch", "cv2", "matplotlib", "lightning", "jsonargparse", "numpy"}
    done = python(f"import sys, vpd.cli; print(sorted(set(sys.modules) & {heavy}))")
    assert done.stdout == "[]\n"


def test_predict_works_without_the_training_extras(desk, refer):
    blocked = "import sys; sys.modules.update(lightning=None, tensorboard=None);"
    words = ["predict", "image.png", "a cube", "--model", refer]
    done = python(f"{blocked} from vpd.cli import main; sys.exit(main({words}))")
    assert done.returncode == 0, done.stderr
    done = python(f"{blocked} from vpd.cli import main; sys.exit(main(['train', '--seed', '1']))")
    assert done.returncode == 2
    assert "pip install 'vpd[train]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_python_dash_m():
    done = subprocess.run(
        [sys.executable, "-m", "vpd.cli", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"vpd {vpd.__version__}\n"
