"""``vpd info`` says what a report of a bug needs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import vpd
from vpd import _build
from vpd.tasks import store


def test_versions_are_those_installed(run_json):
    found = run_json("info")["versions"]
    assert found["vpd"] == vpd.__version__
    assert found["python"] == platform.python_version()
    for name in ("torch", "numpy", "jsonargparse", "pytest"):  # required, and of an extra
        assert found[name] == version(name)


def test_machine_and_devices(run_json):
    found = run_json("info")
    assert platform.release() in found["machine"]["system"]
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    assert float(found["machine"]["memory"].split()[0]) == pytest.approx(total, abs=0.1)
    assert f"{torch.get_num_threads()} threads" in found["devices"]["cpu"]


def test_what_the_core_was_built_for_and_runs(run_json):
    found = run_json("info")["native"]
    assert Path(found["core"]) == _build.core_file()
    assert found["built: torch"] == torch.__version__.split("+")[0]
    assert "cross_attention" in found["ops on CPU"]


def test_folders_settings_and_models(run_json, monkeypatch, tmp_path):
    monkeypatch.setenv("VPD_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    found = run_json("info")
    assert Path(found["folders"]["cache"]).parent == tmp_path
    assert Path(found["folders"]["package"], "__init__.py").is_file()
    assert found["settings"]["OMP_NUM_THREADS"] == "1"
    assert "SECRET_TOKEN" not in found["settings"]
    assert set(found["models"]) == set(store.shipped())


def test_a_core_that_does_not_load_is_reported_with_all_else(run, monkeypatch):
    def refuse():
        raise ImportError("disagree: found, built for")

    monkeypatch.setattr(_build, "facts", refuse)
    code, out, _ = run("info")
    assert code == 1
    assert "disagree: found, built for" in out
    for part in ("versions:", "machine:", "devices:", "folders:", version("numpy")):
        assert part in out
