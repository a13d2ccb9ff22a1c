"""What the core was built for is known, compared and said before it is loaded."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import vpd
import vpd._load
from vpd import _build

CORE = _build.core_file()
TORCH = ".".join(torch.__version__.split(".")[:2])


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A core of which nothing but its facts can be read, and a way to write these."""
    monkeypatch.setattr(_build, "core_file", lambda: tmp_path / "_C.so")

    def write(**changed: str) -> None:
        facts = {"vpd": vpd.__version__, "torch": torch.__version__.split("+")[0]}
        (tmp_path / "build.json").write_text(json.dumps(facts | changed))

    return write


def test_facts_are_those_of_the_installed_pytorch():
    found = _build.facts()
    assert found["torch"] == torch.__version__.split("+")[0]
    assert found["vpd"] == vpd.__version__
    assert found["python"].rsplit(".", 1)[0] == "{}.{}".format(*sys.version_info)
    assert re.fullmatch(r"(GNU|Clang|AppleClang) [\d.]+", found["compiler"])
    # Nothing was left unfilled.
    assert all(value and "@" not in value for value in found.values())
    _build.check()


def test_another_pytorch_is_refused_before_the_core_is_loaded(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.12.1+cu128")
    monkeypatch.delattr(vpd, "_C")
    monkeypatch.setitem(sys.modules, "vpd._C", None)  # loading it would be another error
    monkeypatch.setattr(_build, "core_file", lambda: CORE)
    with pytest.raises(ImportError) as error:
        importlib.reload(vpd._load)
    message = str(error.value)
    assert message.startswith("vpd's compiled core and PyTorch disagree")
    assert f"found PyTorch 2.12.1+cu128 in {Path(torch.__file__).parent}" in message
    assert f"built for PyTorch {_build.facts()['torch']}" in message
    assert f"pip install 'torch=={TORCH}.*'" in message
    assert "pip install --no-build-isolation ." in message


def test_python_files_of_another_version_are_refused(monkeypatch):
    monkeypatch.setattr(vpd, "__version__", "9.8.7")
    with pytest.raises(ImportError) as error:
        _build.check()
    assert "found Python files of vpd 9.8.7" in str(error.value)
    assert f"a core built as vpd {_build.facts()['vpd']}" in str(error.value)


def test_another_patch_of_pytorch_is_the_same(built, monkeypatch):
    built(torch="2.13.0")
    monkeypatch.setattr(torch, "__version__", "2.13.7+cu130")
    _build.check()
    monkeypatch.setattr(torch, "__version__", "2.130.0")
    with pytest.raises(ImportError, match="disagree"):
        _build.check()


def test_a_core_of_another_python_is_named(monkeypatch, tmp_path):
    (tmp_path / "_C.cpython-39-x86_64-linux-gnu.so").touch()
    monkeypatch.setattr(_build, "core_file", lambda: None)
    monkeypatch.setattr(vpd, "__path__", [str(tmp_path)])
    with pytest.raises(ImportError, match="compiled core is missing") as error:
        _build.check()
    message = str(error.value)
    assert "_C.cpython-39-x86_64-linux-gnu.so" in message
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in message
    assert "pip install --no-build-isolation ." in message


@pytest.mark.parametrize("text", [None, "{", ""])
def test_a_core_without_facts_is_refused(built, tmp_path, text):
    if text is not None:
        (tmp_path / "build.json").write_text(text)
    with pytest.raises(ImportError, match=r"expected a build\.json beside it"):
        _build.check()


def test_a_core_that_does_not_load_says_why(built, tmp_path, monkeypatch):
    built(compiler="GNU 1.2.3")
    monkeypatch.delattr(vpd, "_C")
    monkeypatch.setitem(sys.modules, "vpd._C", None)  # Python's way to say that an import fails
    with pytest.raises(ImportError) as error:
        importlib.reload(vpd._load)
    message = str(error.value)
    assert f"{tmp_path / '_C.so'} did not load" in message
    assert f"Found PyTorch {torch.__version__}" in message
    assert "GNU 1.2.3" in message
    assert "pip install --no-build-isolation ." in message
