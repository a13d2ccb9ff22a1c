"""Pickles: plain data of any protocol is read, anything else is refused before it runs."""

import collections
import io
import pickle
import pickletools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpd import _C
from vpd.data.pickles import load_plain

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=15,
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "refs(unc).p"


@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_data_is_read(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.p"
    path.write_bytes(pickle.dumps(value, protocol))
    assert load_plain(path) == value


def test_python2_strings(file):
    # {'sent': 'caf\xe9', u'raw': u'caf\xe9'} as Python 2 writes it, protocol 2 and protocol 0
    file.write_bytes(
        b"\x80\x02}q\x00(U\x04sentq\x01U\x04caf\xe9q\x02X\x03\x00\x00\x00rawX\x05\x00\x00\x00caf\xc3\xa9u."
    )
    assert load_plain(file) == {"sent": "café", "raw": "café"}
    file.write_bytes(b"(dp0\nS'sent'\np1\nS'caf\\xe9'\np2\nsVraw\np3\nVcaf\\u00e9\np4\ns.")
    assert load_plain(file) == {"sent": "café", "raw": "café"}
    # a Python 2 long and a tuple
    file.write_bytes(b"\x80\x02\x8a\x05\x00\x00\x00\x00\x01K\x07\x86.")
    assert load_plain(file) == (2**32, 7)


def test_python3_bytes_in_old_protocols_become_text(file):
    for protocol in (0, 1, 2, 3, 4):
        file.write_bytes(pickle.dumps({b"sent": [b"left man", "caf\u00e9".encode()]}, protocol))
        assert load_plain(file) == {"sent": ["left man", "café"]}
    file.write_bytes(pickle.dumps("café".encode("latin-1"), 2))
    assert load_plain(file) == "café"


class _Runs:
    """Unpickles into a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _hostile(marker):
    import os
    import subprocess

    command = f"touch {marker}"
    yield _Runs(os.system, command)
    yield [{"ref_id": 1, "sentences": [_Runs(os.system, command)]}]
    yield _Runs(subprocess.check_output, ["touch", marker])
    yield _Runs(eval, f"open({marker!r}, 'w')")
    yield _Runs(exec, f"open({marker!r}, 'w')")
    yield _Runs(getattr, dict, "fromkeys")
    yield _Runs(__import__, "os")
    yield collections.OrderedDict(a=1)
    yield collections.Counter("ab")
    yield {1, 2}.__class__
    yield print


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("which", range(11))
def test_hostile_pickles_run_nothing(file, tmp_path, which, protocol):
    marker = tmp_path / "it-ran"
    payload = list(_hostile(str(marker)))[which]
    file.write_bytes(pickle.dumps(payload, protocol))
    with pytest.raises(
        ValueError, match=r"refs\(unc\).p: expected a pickle of plain data .* asks for"
    ):
        load_plain(file)
    assert not marker.exists()


def test_the_one_allowed_function_cannot_be_abused(file):
    encode = b"\x80\x02c_codecs\nencode\n"
    for rest, why in (
        (b"X\x03\x00\x00\x00abcX\x03\x00\x00\x00bz2\x86R.", "encoding 'bz2'"),
        (b"}X\x08\x00\x00\x00__call__K\x01sb.", ""),  # BUILD: give it a new state
        (b"N}X\x09\x00\x00\x00__class__K\x01s\x86b.", ""),  # BUILD through setattr
        (b"K\x01K\x02\x86R.", ""),
    ):
        pickletools.dis(encode + rest, out=io.StringIO())  # well formed
        file.write_bytes(encode + rest)
        with pytest.raises(ValueError, match="expected a pickle of plain data.*" + why):
            load_plain(file)


def test_truncated_files(file):
    whole = pickle.dumps([{"ref_id": 1, "sentences": [{"sent": "the red cube"}]}], 2)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected a pickle of plain data"):
            load_plain(file)


def test_other_files(file):
    for data in (b"hello", b"PK\x03\x04", b"\x80\x09.", b"cos\nsystem\n(S'true'\ntR."):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="expected a pickle of plain data"):
            load_plain(file)
    with pytest.raises(FileNotFoundError):
        load_plain(file.with_name("none.p"))


@pytest.mark.parametrize(
    ("asks", "why"),
    [
        (b"r\xff\xff\xff\x7f", "keeps slot 2147483647"),
        (b"p2000000000\n", "keeps slot 2000000000"),
        (b"p-1\n", "number of a memo slot"),
        (b"\x96\x00\x00\x00\x00\x01\x00\x00\x00", "needs 4294967296 bytes"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", "needs 18446744073709551615 bytes"),
        (b"T\xff\xff\xff\x7f", "needs 2147483647 bytes"),
        (b"Snever ends", "ends inside a line"),
        (b"\xff", "255 at offset 3"),
    ],
)
def test_what_is_asked_for_lies_in_the_file(file, monkeypatch, asks, why):
    """Python's machine takes the memory first: it is not started."""
    monkeypatch.setattr("vpd.data.pickles._DataUnpickler", None)
    file.write_bytes(b"\x80\x05]" + asks + b"a.")
    with pytest.raises(ValueError, match=rf"refs\(unc\).p: expected .*{why}"):
        load_plain(file)


def test_opcodes_have_the_arguments_that_pickletools_knows():
    """Each opcode with an argument of its kind, then STOP; cut anywhere, it is refused."""
    sizes = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4}
    sizes |= {pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}
    for opcode in pickletools.opcodes:
        n = opcode.arg.n if opcode.arg else 0
        if n == pickletools.UP_TO_NEWLINE:
            lines = 2 if opcode.arg is pickletools.stringnl_noescape_pair else 1
            argument = b"1\n" * lines
        elif n in sizes:
            argument = (3).to_bytes(sizes[n], "little") + b"abc"
        else:
            argument = bytes(n)
        stop = b"" if opcode.name == "STOP" else b"."
        whole = opcode.code.encode("latin-1") + argument
        _C.check_pickle(whole + stop)
        for end in range(len(whole)):
            with pytest.raises(ValueError, match="pickle"):
                _C.check_pickle(whole[:end])


def test_a_list_named_over_and_over_stays_one(file):
    """2^60 strings if each name were a copy."""
    value: list = ["man"]
    for _ in range(60):
        value = [value, value]
    file.write_bytes(pickle.dumps(value, 2))
    read = load_plain(file)
    assert read[0] is read[1]
