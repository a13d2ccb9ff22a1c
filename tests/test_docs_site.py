"""The documentation site: every page is in its navigation, and it builds without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_page_has_a_place_a_title_and_says_what_it_is(path):
    place = path.relative_to(ROOT / "docs")
    assert f": {place}\n" in (ROOT / "mkdocs.yml").read_text(), f"mkdocs.yml: no {place}"
    title, empty, first = path.read_text().split("\n")[:3]
    assert re.match(r"# \S", title)
    # vpd-mini's page begins without an empty line.
    assert re.match(r"(?!```)[\w*`]", empty or first), f"{place}: no sentence below the title"


def test_index_lists_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    for path in PAGES:
        place = path.relative_to(ROOT / "docs")
        assert path.name == "index.md" or f"({place})" in index, f"docs/index.md: no {place}"


@pytest.mark.slow
def test_site_builds_and_needs_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loads = r'<(?:script|img|iframe|link rel="(?:stylesheet|preconnect|icon)")[^>]*https?://'
    for page in tmp_path.rglob("*.html"):
        assert not re.search(loads, page.read_text()), page.name
    reference = (tmp_path / "reference" / "vpd.html").read_text()
    assert 'id="vpd.models.unet.UNet.forward"' in reference
    assert ":class:`" not in reference
