from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import tiny

from vpd.serve.answers import Served
from vpd.serve.limits import Limits


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A running page of one tiny model: its address, its model, its temporary folder's parent."""
    if importlib.util.find_spec("gradio") is None:  # importing it here would begin a cache
        pytest.skip("no gradio")
    from vpd.serve.page import running

    model = tiny.segmenter()
    tiny.balance(model)
    parent = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(parent))
        with running([Served("tiny", "refer", model)], Limits(max_mb=1), 0) as address:
            yield SimpleNamespace(address=address.rstrip("/"), model=model, folder=parent)
