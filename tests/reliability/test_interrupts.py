"""Commands that are interrupted (SIGINT) or killed (SIGKILL) and started again end as ones that
were left alone. What lies on disk in between is whole."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from faults import files, start
from toys import recipe, write_foundation

from vpd.data.tabletop.layout import write_refer
from vpd.images import read_image
from vpd.weights import read_state_dict

pytest.importorskip("lightning")
pytestmark = pytest.mark.slow
SECONDS = 600


@dataclass
class Command:
    """A command line for an output folder; whether it is under way; what it leaves there."""

    words: Callable[[Path], list[str]]
    begun: Callable[[Path, str], bool]
    results: Callable[[Path, str], object]


def _predict(place: Path) -> Command:
    images = place / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(60):
        cv2.imwrite(str(images / f"{i:02d}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
    return Command(
        lambda out: ["predict", str(images), "the red cube", "--out", str(out)],
        lambda out, _: len(list(out.glob("*.png"))) > 2,
        lambda out, _: {n: d for n, d in files(out).items() if not n.startswith(".")},
    )


def _evaluate(place: Path) -> Command:
    words = ["evaluate", "--model", "vpd-mini-refer", "--data", "tabletop", "--limit", "60"]

    def results(_: Path, said: str) -> object:
        found = json.loads(said[said.rindex("\n{\n") :])
        return json.dumps(found.get("metrics", found))

    return Command(
        lambda _: [*words, "--json"],
        lambda _, said: "%|" in said or "it/s" in said,
        results,
    )


def _base(place: Path) -> dict:
    fields = recipe(write_foundation(place / "foundation"), place / "cache")
    write_refer(place / "data", ["train", "val"], {"train": 4, "val": 2}, progress=False)
    data = {"root": str(place / "data"), "split": "train"}
    loop = fields["loop"] | {"steps": 60, "checkpoint_every": 5}
    return fields | {"data": fields["data"] | data, "loop": loop}


def _weights(out: Path, _: str) -> object:
    found = {}
    for path in sorted(out.rglob("model/model.safetensors")):
        state = read_state_dict(path)[0]
        found[path.relative_to(out).as_posix()] = {k: v.tolist() for k, v in state.items()}
    assert found
    return found


def _train(place: Path) -> Command:
    config = place / "train.yaml"
    config.write_text(yaml.safe_dump(_base(place)))
    return Command(
        lambda out: ["train", "--config", str(config), "--out", str(out)],
        lambda out, _: (out / "last.ckpt").exists(),
        _weights,
    )


def _sweep(place: Path) -> Command:
    config = place / "sweep.yaml"
    axes = {"training": {"frozen": {"set": {"freeze": "unet", "text_adapter": False}},
                         "tuned": {"set": {}}}}  # fmt: skip
    config.write_text(yaml.safe_dump({"set": _base(place), "axes": axes, "columns": ["oIoU"]}))
    return Command(
        lambda out: ["sweep", "--config", str(config), "--out", str(out)],
        lambda out, _: any(out.rglob("last.ckpt")),
        _weights,
    )


COMMANDS = {"predict": _predict, "evaluate": _evaluate, "train": _train, "sweep": _sweep}


@pytest.fixture(scope="module", params=COMMANDS)
def whole(request, tmp_path_factory):
    """A command, its folder, and the results of a run that was left alone."""
    place = tmp_path_factory.mktemp(request.param)
    command = COMMANDS[request.param](place)
    out, log = place / "whole", place / "whole.log"
    assert start(*command.words(out), log=log).wait(SECONDS) == 0, log.read_text()[-3000:]
    return command, place, command.results(out, log.read_text())


def stop(command: Command, out: Path, log: Path, number: signal.Signals) -> int:
    process = start(*command.words(out), log=log)
    deadline = time.monotonic() + SECONDS
    try:
        while not (log.exists() and command.begun(out, log.read_text())):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        return process.wait(SECONDS)
    finally:
        process.kill()


def check_whole(out: Path) -> None:
    """Every picture and every file of weights can be read."""
    for path in out.rglob("*.png"):
        if not path.name.startswith("."):
            read_image(path)
    for path in out.rglob("*.safetensors"):
        read_state_dict(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_stopped_and_started_again(whole, number):
    command, place, results = whole
    out, log = place / number.name, place / f"{number.name}.log"
    code = stop(command, out, log, number)
    said = log.read_text()
    if number == signal.SIGINT:
        assert code == 130, said[-3000:]
        assert "vpd: interrupted" in said.splitlines()
        assert "Traceback" not in said
        left = [p.name for p in out.rglob("*") if ".tmp" in p.name] if out.exists() else []
        assert not left
    else:
        assert code == -signal.SIGKILL
    if out.exists():
        check_whole(out)
    log.unlink()
    assert start(*command.words(out), log=log).wait(SECONDS) == 0, log.read_text()[-3000:]
    assert command.results(out, log.read_text()) == results
