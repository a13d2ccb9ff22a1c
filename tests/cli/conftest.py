from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny

from vpd.cli import main
from vpd.tasks import store


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with two tiny random models: ``refer`` and ``foundation``."""
    folder = tmp_path_factory.mktemp("models")
    store.save(tiny.segmenter(), folder / "refer")
    store.save(tiny.foundation(), folder / "foundation")
    return folder


@pytest.fixture
def refer(models):
    return str(models / "refer")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The working folder, with one picture in it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    cv2.imwrite("image.png", rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    return tmp_path


@pytest.fixture
def run(capfd):
    """Runs a command: (exit code, standard output, standard error)."""

    def call(*words):
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def run_json(run):
    def call(*words):
        code, out, err = run(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture
def refused(run):
    """Runs a command that must end with exit code 2 and one line on standard error; returns it."""

    def call(*words):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        lines = [line for line in err.splitlines() if not line.startswith("vpd: warning:")]
        assert len(lines) == 1, err
        assert lines[0].startswith("vpd: error: ")
        return lines[0]

    return call
