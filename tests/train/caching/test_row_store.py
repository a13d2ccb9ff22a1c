"""Rows on disk under content keys: they come back, and the store survives what may happen to
files."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from vpd.train.caching.row_store import RowStore, digest


def rows_of(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 2, 3, generator=generator), torch.randn(n, 4, generator=generator)]


def test_rows_come_back_from_memory_and_disk(tmp_path):
    store, keys, parts = RowStore(tmp_path, torch.float32), [b"a", b"b", b"c"], rows_of(3)
    store.add(keys, parts)
    assert b"b" in store
    assert b"d" not in store
    for reader in (store, RowStore(tmp_path, torch.float32)):
        if reader is not store:
            store.flush()
            reader.refresh()
        got = reader.read([b"c", b"a"])
        for g, p in zip(got, parts, strict=True):
            assert torch.equal(g, p[[2, 0]])
    assert copy.deepcopy(store) is store
    half = RowStore(tmp_path / "half")
    half.add(keys, parts)
    with torch.autocast("cpu", torch.bfloat16):
        got = half.read([b"b"])
    assert got[0].dtype == torch.float32
    assert torch.equal(got[1], parts[1][1:2].half().float())
    with pytest.raises(KeyError):
        store.read([b"d"])


def test_large_additions_reach_the_disk_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr("vpd.train.caching.row_store._CHUNK_BYTES", 100)
    store = RowStore(tmp_path)
    for i in range(12):
        store.add([bytes([i])], rows_of(1, i))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2  # 5 rows of 20 bytes each
    assert len(store) == 12


def test_damaged_and_foreign_chunks_are_left_out(tmp_path, caplog):
    store = RowStore(tmp_path)
    store.add([b"a"], rows_of(1))
    store.flush()
    (chunk,) = tmp_path.glob("*.safetensors")
    whole = chunk.read_bytes()
    (tmp_path / ".half.safetensors.tmp").write_bytes(whole[:50])  # of a writer that was killed
    (tmp_path / "empty.safetensors").write_bytes(b"")
    chunk.write_bytes(whole[:-1])
    fresh = RowStore(tmp_path)
    assert len(fresh) == 0
    assert caplog.text.count("it is damaged") == 2
    fresh.add([b"a"], rows_of(1))
    fresh.flush()  # the same rows make the same file, which heals it
    assert chunk.read_bytes() == whole
    assert b"a" in RowStore(tmp_path)
    assert len(RowStore(tmp_path, torch.float32)) == 0
    assert "another kind" in caplog.text


def test_values_that_do_not_fit_are_refused(tmp_path):
    store = RowStore(tmp_path)
    with pytest.raises(ValueError, match=r"float16 can hold, got up to 1e\+06"):
        store.add([b"a"], [torch.full((1, 2), 1e6)])
    store.add([b"a"], rows_of(1))
    with pytest.raises(ValueError, match="expected rows of"):
        store.add([b"b"], [torch.zeros(1, 5)])


WRITER = """
import os, sys, torch
from pathlib import Path
import vpd.train.caching.row_store as row_store
row_store._CHUNK_BYTES = 200
store = row_store.RowStore(Path(sys.argv[1]), torch.float32)
for i in range(40):
    if i == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    if bytes([i]) not in store:
        store.add([bytes([i])], [torch.full((1, 10), float(i))])
store.flush()
"""


def test_killed_and_simultaneous_processes_fill_one_store(tmp_path):
    words = [sys.executable, "-c", WRITER, str(tmp_path)]
    assert subprocess.run([*words, "23"]).returncode == -9
    rest = len(RowStore(tmp_path, torch.float32))
    assert 0 < rest < 23  # whole chunks of the killed one
    jobs = [subprocess.Popen([*words, "-1"]) for _ in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    (rows,) = RowStore(tmp_path, torch.float32).read([bytes([i]) for i in range(40)])
    assert torch.equal(rows, torch.arange(40.0)[:, None].expand(40, 10))


def test_digest_sees_names_shapes_and_values():
    a, b = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    assert digest(a) == digest(copy.deepcopy(a)) != digest(b)
    assert digest("ab", "c") != digest("a", "bc")
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
