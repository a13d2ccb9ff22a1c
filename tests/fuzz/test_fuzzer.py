"""`make fuzz` runs, and finds what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLANTED = """
import dataclasses, sys
from pathlib import Path
from fuzz import child
from fuzz.targets import TARGETS

def read(folder):
    if b"[[]" in (folder / "tags.json").read_bytes():
        raise KeyError("planted")

TARGETS["tags"] = dataclasses.replace(TARGETS["tags"], read=read)
child.main("tags", Path(sys.argv[1]), ["-runs=100000", "-artifact_prefix=" + sys.argv[2]])
"""


@pytest.mark.slow
def test_a_planted_defect_is_found(tmp_path):
    command = [sys.executable, "-c", PLANTED, tmp_path / "read", f"{tmp_path}/found-"]
    done = subprocess.run(command, cwd=ROOT / "tools", capture_output=True, text=True)
    assert done.returncode != 0
    assert "KeyError: 'planted'" in done.stdout + done.stderr
    (found,) = tmp_path.glob("found-crash-*")
    assert b"[[]" in found.read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang++") is None, reason="tools/preflight.sh python3 --fuzz")
def test_make_fuzz(tmp_path):
    """The whole command, two seconds for a reader of each language."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- fuzz:begin -->\nold\n<!-- fuzz:end -->\nafter\n")
    settings = ["FUZZ_SECONDS=2", "FUZZ_TARGETS=tags core-zip", f"FUZZ_WRITE={page}"]
    settings += [f"FUZZ_KEEP={tmp_path}", f"VENV={sys.prefix}", "-o", "dev"]
    subprocess.run(["make", "fuzz", *settings], cwd=ROOT, check=True, capture_output=True)
    rows = json.loads((tmp_path / "report.json").read_text())
    for target in ("tags", "core-zip"):
        assert rows[target]["inputs"] > 100
        assert f"| `{target}` |" in page.read_text()
    assert "old" not in page.read_text()
