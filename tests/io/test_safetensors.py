"""The safetensors reader and writer against the safetensors library, and against damaged files."""

import json
import os
import random
import struct

import pytest
import safetensors.torch as reference
import torch
from safetensors import safe_open

from vpd.weights import read_state_dict, save_weights

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
    tensors = {f"odd.{dtype}": (torch.randn(3, 5) * 9).to(dtype) for dtype in DTYPES}
    tensors["scalar"] = torch.tensor(3.5)
    tensors["empty"] = torch.zeros(0, 4)
    tensors['é "quoted" \\ \n 日本'] = torch.arange(6.0).reshape(1, 2, 3)
    return tensors


def assert_same(got, want):
    assert set(got) == set(want)
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor), name


def file_of(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_the_library_writes(tmp_path):
    tensors = make_tensors()
    reference.save_file(tensors, tmp_path / "x.safetensors", metadata={"a": "b ü"})
    got, info = read_state_dict(tmp_path / "x.safetensors")
    assert_same(got, tensors)
    assert (info.format, info.layout, info.metadata) == ("safetensors", "unknown", {"a": "b ü"})
    assert info.dtypes == {**{str(d)[6:]: 1 for d in DTYPES}, "float32": 4}


def test_writes_what_the_library_reads(tmp_path):
    tensors = make_tensors()
    tensors["strided"] = torch.randn(4, 6).t()[1::2]
    save_weights(tensors, tmp_path / "x.safetensors", {"made": "test\t1"})
    assert_same(reference.load_file(tmp_path / "x.safetensors"), tensors)
    assert_same(read_state_dict(tmp_path / "x.safetensors")[0], tensors)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"made": "test\t1"}
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_no_tensors(tmp_path):
    save_weights({}, tmp_path / "x.safetensors")
    assert reference.load_file(tmp_path / "x.safetensors") == {}
    assert read_state_dict(tmp_path / "x.safetensors")[0] == {}


def test_every_tensor_written_is_aligned(tmp_path):
    tensors = {"a": torch.ones(3, dtype=torch.int8), "b": torch.ones(5, dtype=torch.float64)}
    save_weights(tensors, tmp_path / "x.safetensors")
    got, _ = read_state_dict(tmp_path / "x.safetensors")
    assert list(got) == ["a", "b"]
    assert got["b"].data_ptr() % 8 == 0


def test_unaligned_tensors_are_read(tmp_path):
    data = b"\1" + struct.pack("<2f", 1.5, -2.0)
    header = {"b": entry("BOOL", [1], [0, 1]), "f": entry("F32", [2], [1, 9])}
    (tmp_path / "x").write_bytes(file_of(header, data))
    got, _ = read_state_dict(tmp_path / "x")
    assert got["f"].data_ptr() % 4 == 0
    assert got["f"].tolist() == [1.5, -2.0]
    assert got["b"].tolist() == [True]


def test_views_outlive_the_file_and_never_change_it(tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights({"a": torch.arange(4.0)}, path)
    before = path.read_bytes()
    tensor = read_state_dict(path)[0]["a"]
    tensor[0] = 100.0
    assert path.read_bytes() == before
    save_weights({"a": torch.zeros(4)}, path)  # replaces the file, not the mapping
    path.unlink()
    assert tensor.tolist() == [100.0, 1.0, 2.0, 3.0]


def test_failed_writes_leave_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors"):
        save_weights({"a": torch.ones(1)}, tmp_path / "none" / "x.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        save_weights({"a": torch.ones(1)}, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match=r"'z' must be .*ComplexFloat"):
        save_weights({"z": torch.ones(1, dtype=torch.complex64)}, path)
    with pytest.raises(ValueError, match="meta device"):
        save_weights({"z": torch.ones(1, device="meta")}, path)
    with pytest.raises(ValueError, match="__metadata__"):
        save_weights({"__metadata__": torch.ones(1)}, path)
    with pytest.raises(TypeError, match="'z': int"):
        save_weights({"z": 3}, path)
    with pytest.raises(TypeError, match="metadata must be text"):
        save_weights({"z": torch.ones(1)}, path, {"epoch": 3})
    assert os.listdir(tmp_path) == []


EIGHT = b"\0" * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"empty file \(0 bytes\)"),
        (file_of(b'{"a', length=1 << 40), "header length must be in"),
        (file_of(b"{}", length=1 << 63), "header length must be in"),
        (file_of(b"{ ", length=1), "header length must be in"),
        (file_of(b"{} }"), "nothing but spaces"),
        (file_of(b'{"a":1}'), "expected '{'"),
        (file_of(b"{ "), "end of the header"),
        (file_of(b'{"a\xff":{}}'), "UTF-8"),
        (file_of(b'{"\\ud800":{}}'), "surrogate pair"),
        (file_of(b'{"\\udc00":{}}'), "UTF-8"),
        (file_of(b'{"a\n":{}}'), "byte 10"),
        (file_of(b'{"\\x":{}}'), "JSON escape"),
        (file_of(b"{'a':{}}"), "expected '\"'"),
        (file_of(b'{"a":{}}'), "dtype, shape and data_offsets"),
        (file_of({"a": entry() | {"more": 1}}, EIGHT), "'more' in tensor 'a'"),
        (file_of({"a": entry("F31")}, EIGHT), "must be one of F64 .* got 'F31'"),
        (file_of({"a": entry(shape=[-2])}, EIGHT), "an integer in"),
        (file_of({"a": entry(shape=[2.0])}, EIGHT), r"expected '\]', got '\.'"),
        (file_of({"a": entry(shape=[1 << 63])}, EIGHT), "an integer in"),
        (file_of({"a": entry(shape=[1] * 65)}, EIGHT), "at most 64 dimensions"),
        (file_of({"a": entry(shape=[1 << 40, 1 << 40])}, EIGHT), "overflows"),
        (file_of({"a": entry(shape=[0, 1 << 40, 1 << 40])}, EIGHT), "overflows"),
        (file_of({"a": entry(shape=[1 << 62])}, EIGHT), "overflows"),
        (file_of({"a": entry(shape=[3])}, EIGHT), "needs 12 bytes .* got 8"),
        (file_of({"a": entry(offsets=[0, 8, 8])}, EIGHT), "two data_offsets"),
        (file_of({"a": entry(offsets=[8, 0])}, EIGHT), "inside the 8 bytes"),
        (file_of({"a": entry(offsets=[0, 8])}, EIGHT[:4]), "truncated"),
        (file_of({"a": entry()}, EIGHT + EIGHT), "describes 8 bytes of data, the file holds 16"),
        (file_of({"a": entry(), "b": entry()}, EIGHT), "'b' must begin .* at 8, got 0"),
        (file_of({"a": entry(), "b": entry(offsets=[9, 17])}, EIGHT * 3), "at 8, got 9"),
        (file_of(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), EIGHT), "'a' twice"),
        (file_of({"__metadata__": {"a": 1}}), "expected '\"'"),
        (file_of(b'{"__metadata__":{"a":"","a":""}}'), "'a' twice"),
        (file_of({"a": entry("BOOL", [2], [0, 2])}, b"\1\2"), "0 or 1, got 2"),
        (file_of({"a": entry(shape=["02"])}, EIGHT), "an integer in"),
        (file_of(b'{"a":{"shape":[02]}}'), "leading zeros"),
    ],
)
def test_bad_headers(tmp_path, content, message):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_state_dict(tmp_path / "x.safetensors")
    assert "x.safetensors" in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither .* exists"):
        read_state_dict(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="found no weights"):
        read_state_dict(tmp_path)


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
    reference.save_file(make_tensors(), tmp_path / "x", metadata={"a": "b"})
    whole = (tmp_path / "x").read_bytes()
    for length in range(len(whole)):
        assert str(tmp_path) in refusal(tmp_path / "cut", whole[:length])


def test_random_damage_is_refused_or_harmless(tmp_path):
    reference.save_file(make_tensors(), tmp_path / "x", metadata={"a": "b"})
    whole = (tmp_path / "x").read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    source = random.Random(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(source.randint(1, 3)):
            at = source.randrange(header)
            match source.randrange(4):
                case 0:
                    damaged[at] ^= 1 << source.randrange(8)
                case 1:
                    damaged[at] = source.randrange(256)
                case 2:
                    del damaged[at : at + source.randint(1, 9)]
                case 3:
                    damaged[at:at] = source.choice([b"0", b"}", b'"', b"[", b"99999999", b","])
        message = refusal(tmp_path / "bad", bytes(damaged))
        assert message is None or str(tmp_path) in message
        refused += message is not None
    assert refused > 1500
