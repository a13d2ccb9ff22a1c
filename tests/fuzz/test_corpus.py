"""Inputs that were worth keeping: whole files are read, damaged ones refused with one clear error.

`make fuzz` damages them further (tools/fuzz); inputs that once broke a reader are among them.
"""

from __future__ import annotations

import pytest
from fuzz.fuzzer import CORE
from fuzz.targets import CORPUS, TARGETS, corpus

CASES = [(name, file) for name in TARGETS for file in corpus(name)]


@pytest.mark.parametrize(("name", "file"), CASES, ids=lambda part: part)
def test_corpus(name, file, tmp_path):
    error = TARGETS[name].check(corpus(name)[file], tmp_path)
    assert (error is None) == file.startswith("good"), error


def test_every_folder_is_read():
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys() | CORE.keys()


def test_corpus_is_small_and_named():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300_000
    assert all(path.name.startswith(("good", "bad")) for path in files)
