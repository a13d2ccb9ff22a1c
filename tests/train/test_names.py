"""Names that can be imported from the folders of trainings."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

pytest.importorskip("lightning")

FOLDERS = ("dense", "edit", "loop", "open", "panoptic", "pretrain", "refer", "sweep")


@pytest.mark.parametrize("folder", FOLDERS)
def test_public_names_are_those_of_their_modules(folder):
    package = importlib.import_module(f"vpd.train.{folder}")
    assert sorted(package.__all__) == sorted(package._PUBLIC)
    for name, module in package._PUBLIC.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match=f"'vpd.train.{folder}' has no attribute 'Unknown'"):
        package.Unknown  # noqa: B018


def test_folders_load_nothing_before_it_is_asked_for():
    """And what trainings share needs no task."""
    code = f"""
import importlib, sys
for folder in {FOLDERS}:
    importlib.import_module("vpd.train." + folder)
print("lightning" in sys.modules, "vpd.train.refer.config" in sys.modules)
import vpd.train.loop.fit, vpd.train.loop.frozen, vpd.train.loop.saving, vpd.train.footprint
import vpd.train.caching.outputs, vpd.train.caching.sights, vpd.train.caching.pixels
names = (name.split(".") for name in sys.modules if name.startswith("vpd.train."))
print(sorted({{parts[2] for parts in names if len(parts) > 3}}))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == ["False False", "['caching', 'loop']"]
