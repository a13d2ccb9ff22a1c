"""PyTorch checkpoints: what torch.save writes is read; nothing is run; damage is refused."""

import argparse
import collections
import functools
import io
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from vpd.weights import read_state_dict

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


def make_tensors():
    base = torch.randn(6, 8)
    tensors = {f"odd.{dtype}": (torch.randn(3, 5) * 9).to(dtype) for dtype in DTYPES}
    tensors |= {"whole": base, "strided": base.t()[2:6:2, 1::3], "tied": base}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    tensors["parameter"] = nn.Parameter(torch.randn(4))
    return tensors


def assert_same(got, want):
    assert set(got) == set(want)
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor), name


def repacked(path, change, compression=zipfile.ZIP_STORED):
    """The archive's entries after ``change(dict)``, zipped anew."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return target


def with_pickle(path, data):
    def change(entries):
        entries[next(name for name in entries if name.endswith("data.pkl"))] = data

    return repacked(path, change)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict_of_every_dtype(tmp_path, protocol):
    tensors = make_tensors()
    torch.save(tensors, tmp_path / "x.pt", pickle_protocol=protocol)
    got, info = read_state_dict(tmp_path / "x.pt")
    assert_same(got, tensors)
    assert (info.format, info.entry, info.skipped) == ("torch", "", ())
    assert got["tied"].data_ptr() == got["whole"].data_ptr()


@pytest.mark.parametrize("entry", ["state_dict", "model", "weights"])
def test_weights_under_an_entry(tmp_path, entry):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = {entry: module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    content |= {"none": None, "big": 1 << 80, "lr": -1e-4, "list": [1, (2, "x"), {3}, b"\xff"]}
    torch.save(content, tmp_path / "x.pth")
    got, info = read_state_dict(tmp_path / "x.pth")
    assert_same(got, module.state_dict())
    assert info.entry == entry


def test_single_tensor_and_tensor_with_attributes(tmp_path):
    tensor = torch.randn(5, 3)
    tensor.source = "class embeddings"
    torch.save(tensor, tmp_path / "x.pth")
    assert_same(read_state_dict(tmp_path / "x.pth")[0], {"tensor": torch.Tensor(tensor)})


class Callback:
    """Stands for a training library's object in a checkpoint."""

    def __init__(self):
        self.best = torch.ones(3)


def test_foreign_objects_are_left_out_and_named(tmp_path):
    content = {
        "state_dict": collections.OrderedDict(a=torch.ones(2)),
        "callbacks": {"checkpoint": Callback()},
        "hyper_parameters": argparse.Namespace(lr=1e-4, tags=["a", {"b": Callback()}]),
        "score": np.float64(0.5),
        "function": functools.partial(max, 3),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    torch.save(content, tmp_path / "x.ckpt")
    got, info = read_state_dict(tmp_path / "x.ckpt")
    assert_same(got, {"a": torch.ones(2)})
    skipped = " ".join(info.skipped)
    for name in ("Callback", "argparse.Namespace", "functools.partial", "ComplexFloatStorage"):
        assert name in skipped


class Attack:
    """Runs a command when unpickled in the ordinary way."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_pickle_is_never_run(tmp_path):
    marker = tmp_path / "ran"
    content = {"state_dict": {"a": torch.ones(2)}, "b": Attack(marker), "c": [torch.ones(1)]}
    torch.save(content, tmp_path / "x.ckpt")
    got, info = read_state_dict(tmp_path / "x.ckpt")
    assert_same(got, {"a": torch.ones(2)})
    assert info.skipped == ("posix.mkdir",)
    assert not marker.exists()
    torch.load(tmp_path / "x.ckpt", weights_only=False)  # the attack is a real one
    assert marker.exists()


def test_foreign_formats_say_the_way_out(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"before version 1\.6.*torch\.save\(torch\.load"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="plain pickle, which can run code"):
        read_state_dict(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        read_state_dict(path)
    path.write_text("<!doctype html>")
    with pytest.raises(ValueError, match="web page"):
        read_state_dict(path)
    path.write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match="got neither"):
        read_state_dict(path)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match="TorchScript program"):
        read_state_dict(path)


def test_archives_without_a_state_dict(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"Linear; save model\.state_dict"):
        read_state_dict(path)
    torch.save([torch.ones(2)], path)
    with pytest.raises(ValueError, match="got a list"):
        read_state_dict(path)
    torch.save({"a": {"x": torch.ones(1)}, "b": {"y": torch.ones(1)}, "c": 3}, path)
    with pytest.raises(ValueError, match="2 dicts of tensors in the entries a, b, c"):
        read_state_dict(path)
    torch.save({}, path)
    with pytest.raises(ValueError, match=r"entries \(none\)"):
        read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(ValueError, match=r"without data\.pkl"):
        read_state_dict(path)


def test_archives_that_were_changed(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(16.0)}, path)
    assert_same(read_state_dict(repacked(path, lambda e: None))[0], {"a": torch.arange(16.0)})
    with pytest.raises(ValueError, match="got a compressed or encrypted one"):
        read_state_dict(repacked(path, lambda e: None, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="another byte order"):
        read_state_dict(repacked(path, lambda e: e.update({"x/byteorder": b"big"})))
    with pytest.raises(ValueError, match="'x/data/0' is missing"):
        read_state_dict(repacked(path, lambda e: e.pop("x/data/0")))
    with pytest.raises(ValueError, match="16 elements of Float, got 60 bytes"):
        read_state_dict(repacked(path, lambda e: e.update({"x/data/0": b"\0" * 60})))
    data = bytearray(path.read_bytes())
    data[data.index(b"OrderedDict" if b"OrderedDict" in data else b"storage")] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="fails its checksum"):
        read_state_dict(path)


def test_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(4.0)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read_state_dict(tmp_path / "x.pt")[0], {"a": torch.arange(4.0)})


class View:
    """Pickles as a tensor of any geometry, honest or not."""

    def __init__(self, storage, offset, size, stride):
        self.arguments = (storage, offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (17,), (1,)),
        (1, (16,), (1,)),
        (-1, (4,), (1,)),
        (17, (0,), (1,)),
        (0, (2, 8), (9, 1)),
        (15, (2,), (-1,)),
        (0, (1 << 40, 1 << 40), (0, 0)),
        (0, (1000,), (0,)),
        (0, (2, 2), (1 << 62, 1 << 62)),
        (0, (-1,), (1,)),
        (0, (4,), (1, 1)),
        (1 << 63, (4,), (1,)),
        (0, (1,) * 65, (1,) * 65),
    ],
)
def test_tensors_must_lie_in_their_storage(tmp_path, offset, size, stride):
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.arange(16.0).untyped_storage(), dtype=torch.float32, _internal=True
    )
    torch.save({"a": View(storage, 3, (2, 5), (6, 1))}, tmp_path / "x.pt")
    want = torch.arange(16.0).as_strided((2, 5), (6, 1), 3)
    assert_same(read_state_dict(tmp_path / "x.pt")[0], {"a": want})
    torch.save({"a": View(storage, offset, size, stride)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"must lie inside its storage '0' of 16 elements"):
        read_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "needs 1 bytes at offset 0"),
        (b"\x80\x02", "needs 1 bytes at offset 2"),
        (b"\x80\x09N.", "protocol must be 2 to 5, got 9"),
        (b"I1\n.", "opcode 73 at offset 0"),
        (b"\x80\x02.", "empty stack"),
        (b"\x80\x020.", "empty stack"),
        (b"\x80\x02h\x05.", "slot 5, which was never set"),
        (b"\x80\x02t.", "misses a mark"),
        (b"\x80\x02Ne.", "misses a mark"),
        (b"\x80\x02NNa.", "adds items to something else"),
        (b"\x80\x02}(Nu.", "adds items to something else"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "needs 2147483647 bytes"),
        (b"\x80\x02\x8e" + b"\xff" * 8 + b".", "needs 18446744073709551615 bytes"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"\x80\x02NQ.", "persistent id must be"),
        (b"\x80\x02cos\nsystem\n", "needs 1 bytes"),
        (b"\x80\x02cos", "ends inside a name"),
        (b"\x80\x02NN\x93.", "something else than text"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "must have a storage"),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "got a list"),
        (b"\x80\x02]q\x00" + b"h\x00a" * 1000 + b".", "got a list"),
        (b"\x80\x02" + b"N" * 3_000_000 + b".", "at most 2000000 objects"),
    ],
)
def test_damaged_and_hostile_pickles(tmp_path, data, message):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message):
        read_state_dict(with_pickle(tmp_path / "x.pt", data))


def test_a_short_pickle_cannot_fill_the_memory(tmp_path):
    many = b"(" + b"N" * 100_000 + b"lq\x00"
    again = b"ctorch\nSize\nh\x00\x85R0" * 2000
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="at most 32000000 items"):
        read_state_dict(with_pickle(tmp_path / "x.pt", b"\x80\x02" + many + again + b"."))


def as_zip64(data):
    """The archive with every size and offset of its directory moved to zip64 fields."""
    end = data.rindex(b"PK\5\6")
    count, _, offset = struct.unpack("<HII", data[end + 10 : end + 20])
    directory, at = b"", offset
    for _ in range(count):
        fields = bytearray(data[at : at + 46])
        name, extra, comment = struct.unpack("<3H", fields[28:34])
        packed, plain = struct.unpack("<2I", fields[20:28])
        header = struct.unpack("<I", fields[42:46])[0]
        wide = struct.pack("<2H3Q", 1, 24, plain, packed, header)
        fields[20:28] = fields[42:46] * 0 + b"\xff" * 8
        fields[42:46] = b"\xff" * 4
        fields[30:32] = struct.pack("<H", len(wide))
        directory += bytes(fields) + data[at + 46 : at + 46 + name] + wide
        at += 46 + name + extra + comment
    end64 = offset + len(directory)
    record = struct.pack(
        "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), offset
    )
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end64, 1)
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return data[:offset] + directory + record + locator + tail


def test_zip64(tmp_path):
    tensors = make_tensors()
    torch.save(tensors, tmp_path / "x.pt")
    (tmp_path / "wide.pt").write_bytes(as_zip64((tmp_path / "x.pt").read_bytes()))
    assert zipfile.ZipFile(tmp_path / "wide.pt").testzip() is None
    assert_same(read_state_dict(tmp_path / "wide.pt")[0], tensors)


def refusal(path, content):
    """The error that a damaged file gives; None if it reads, its tensors touched end to end."""
    path.write_bytes(content)
    try:
        tensors, _ = read_state_dict(path)
    except ValueError as error:
        return str(error)
    for tensor in tensors.values():
        tensor.double().sum()
    return None


def test_every_truncation_is_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(16.0), "b": torch.ones(3).bool()}, buffer)
    for length in range(len(buffer.getvalue())):
        assert str(tmp_path) in refusal(tmp_path / "cut", buffer.getvalue()[:length])


@pytest.mark.parametrize("checksum", [True, False])
def test_random_damage_is_refused_or_harmless(tmp_path, checksum):
    """Without checksums the damage reaches the pickle machine."""
    torch.serialization.set_crc32_options(checksum)
    try:
        torch.save({"a": torch.arange(16.0), "b": nn.Parameter(torch.ones(3))}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    whole = (tmp_path / "x.pt").read_bytes()
    start = whole.index(b"\x80\x02")
    areas = [range(60), range(start, start + 400), range(len(whole) - 700, len(whole))]
    source = random.Random(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(source.randint(1, 3)):
            at = source.choice(source.choice(areas))
            damaged[at] = source.choice(
                [damaged[at] ^ 1 << source.randrange(8), source.randrange(256)]
            )
        message = refusal(tmp_path / "bad", bytes(damaged))
        assert message is None or str(tmp_path) in message
        refused += message is not None
    assert refused > 700
