"""Whatever the disk does, a file is either as it was or as it should be, and one error says why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
from faults import files, files_end_at, read_only, small_disk

from vpd.cli import main
from vpd.data.files import atomic_write, write_png
from vpd.tasks import store
from vpd.train.caching.row_store import RowStore
from vpd.weights import read_state_dict, save_weights

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def state(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((4000,), value), "b": torch.full((3, 7), value)}


def write_weights(path: Path, value: float) -> None:
    save_weights(state(value), path)


def write_picture(path: Path, value: float) -> None:
    write_png(path, NOISE + np.uint8(value))


WRITERS = {"w.safetensors": write_weights, "a.png": write_picture}


@pytest.fixture(params=WRITERS)
def writer(request):
    return request.param, WRITERS[request.param]


def test_a_file_that_cannot_be_written_to_its_end_is_as_it_was(writer, tmp_path):
    name, write = writer
    write(tmp_path / name, 1.0)
    before = files(tmp_path)
    with files_end_at(2000), pytest.raises(OSError, match="File too large"):
        write(tmp_path / name, 2.0)
    assert files(tmp_path) == before
    with files_end_at(2000), pytest.raises(OSError, match="File too large"):
        write(tmp_path / f"new-{name}", 2.0)
    assert files(tmp_path) == before


def test_full_disk(writer, tmp_path):
    name, write = writer
    with small_disk(tmp_path / "disk", 1 << 16) as there:
        if not there:
            pytest.skip("mounting a file system of its own needs root")
        path = tmp_path / "disk" / name
        write(path, 1.0)
        before = files(path.parent)
        fill = tmp_path / "disk" / "fill"
        with pytest.raises(OSError, match="No space left"):
            fill.write_bytes(bytes(1 << 16))
        full = {**before, "fill": fill.read_bytes()}
        with pytest.raises(OSError, match="No space left"):
            write(path, 2.0)
        assert files(path.parent) == full
        fill.unlink()
        write(path, 2.0)
        assert files(path.parent).keys() == before.keys()


def test_a_model_folder_on_a_full_disk_is_the_old_or_the_new(tmp_path):
    model = tiny.segmenter(0)
    store.save(model, tmp_path / "model")
    before = files(tmp_path)
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    with files_end_at(size // 2), pytest.raises(OSError, match="File too large"):
        store.save(tiny.segmenter(1), tmp_path / "model")
    assert files(tmp_path) == before
    loaded = store.load(tmp_path / "model").state_dict()
    assert all(
        torch.equal(loaded[key], value.half().float()) for key, value in model.state_dict().items()
    )


def test_predict_says_it_in_one_line(tmp_path, capsys):
    store.save(tiny.segmenter(), tmp_path / "model")
    cv2.imwrite(str(tmp_path / "a.png"), NOISE)
    words = ["predict", str(tmp_path / "a.png"), "a cube", "--model", str(tmp_path / "model")]
    out = tmp_path / "out"
    capsys.readouterr()
    with files_end_at(40):
        code = main([*words, "--out", str(out)])
    err = capsys.readouterr().err.strip().splitlines()
    assert code != 0
    assert "File too large" in err[-1]
    assert str(out) in err[-1]
    assert not any(path.is_file() for path in out.rglob("*"))


def rows(*keys: bytes) -> list[torch.Tensor]:
    return [torch.tensor([[float(key[0])] * 500 for key in keys])]


def filled(folder: Path, *keys: bytes) -> RowStore:
    cache = RowStore(folder)
    cache.add(keys, rows(*keys))
    cache.flush()
    return cache


def test_a_cache_on_a_full_disk_keeps_what_it_has(tmp_path):
    cache = filled(tmp_path / "cache", b"a")
    before = files(tmp_path)
    cache.add([b"b"], rows(b"b"))
    with files_end_at(300), pytest.raises(OSError, match="File too large"):
        cache.flush()
    assert files(tmp_path) == before
    # Nothing is lost: what could not be written is still known, and written later.
    assert torch.equal(cache.read([b"a", b"b"])[0], rows(b"a", b"b")[0])
    cache.flush()
    assert torch.equal(RowStore(tmp_path / "cache").read([b"b", b"a"])[0], rows(b"b", b"a")[0])


def test_a_cache_that_is_read_only_serves_what_it_has(tmp_path):
    filled(tmp_path / "cache", b"a")
    with read_only(tmp_path / "cache") as folder:
        cache = RowStore(folder)
        assert torch.equal(cache.read([b"a"])[0], rows(b"a")[0])
        cache.flush()  # nothing new: nothing to write
        cache.add([b"b"], rows(b"b"))
        with pytest.raises(PermissionError) as error:
            cache.flush()
        assert str(folder) in str(error.value)
        assert torch.equal(cache.read([b"b"])[0], rows(b"b")[0])


@pytest.mark.slow
def test_rendered_scenes_that_are_read_only(tmp_path):
    from vpd.data import tabletop

    whole = tabletop.load_split("val", tmp_path, 1, 2, progress=False)
    with read_only(tmp_path) as folder:
        again = tabletop.load_split("val", folder, 1, 2, progress=False)
        for i in range(2):
            np.testing.assert_array_equal(again.images[i], whole.images[i])
        with pytest.raises(OSError, match="Permission denied"):
            tabletop.load_split("test", folder, 1, 2, progress=False)


def killed(action) -> None:
    """Runs in a copy of this process that ends as by kill -9 within the action."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(1)  # the action should not have come to its end
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_while_writing(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def write() -> None:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new" * 10_000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    killed(write)
    assert (tmp_path / "a").read_bytes() == b"old"
    left = [path.name for path in tmp_path.iterdir() if path.name != "a"]
    assert len(left) == 1
    assert left[0].startswith(".a.")  # hidden: no reader takes it for a file of its own


def test_interrupted_while_writing(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def write() -> None:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert files(tmp_path) == {"a": b"old"}


def test_a_cache_whose_writer_was_killed(tmp_path):
    filled(tmp_path, b"a")

    def write() -> None:
        cache = RowStore(tmp_path)
        cache.add([b"b"], rows(b"b"))
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        cache.flush()

    killed(write)
    cache = RowStore(tmp_path)
    assert b"b" not in cache
    assert torch.equal(cache.read([b"a"])[0], rows(b"a")[0])
    assert torch.equal(filled(tmp_path, b"b").read([b"b"])[0], rows(b"b")[0])


def test_weights_whose_writer_was_killed(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, 1.0)
    large = {"a": torch.zeros(50_000_000, dtype=torch.uint8)}
    child = os.fork()
    if child == 0:
        save_weights(large, path)
        os._exit(1)
    while not list(tmp_path.glob("w.safetensors.tmp-*")):
        if os.waitpid(child, os.WNOHANG)[0]:
            pytest.skip("written before it could be killed")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = read_state_dict(path)[0]
    assert found.keys() in (state(1.0).keys(), large.keys())
    wanted = state(1.0) if "b" in found else large
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
