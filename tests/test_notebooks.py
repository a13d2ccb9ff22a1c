"""Notebooks are kept without output, and run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def read(path: Path):
    import nbformat

    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_has_no_output(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_first_code_installs(path):
    """The same in each; the tools of the build are those that the README names."""
    first, expected = (
        next(cell.source for cell in read(one).cells if cell.cell_type == "code")
        for one in (path, NOTEBOOKS[0])
    )
    assert first == expected
    assert 'if importlib.util.find_spec("vpd") is None:\n    %pip install' in first
    readme = (path.parent.parent / "README.md").read_text()
    tools = re.search(r"pip install (scikit-build-core .+)", readme)
    assert tools is not None
    assert tools[1] in first


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path, tmp_path):
    from nbclient import NotebookClient

    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(read(path), timeout=600, resources=resources).execute()
