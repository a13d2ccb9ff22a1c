"""Numbers of MATLAB files against SciPy's reader and writer."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from vpd.data.mat import read_numbers

ARRAYS = {
    "a": np.array([[3, 1, 2]], np.uint16),
    "column": np.arange(1000.0)[:, None],
    "table": np.arange(6, dtype=np.int32).reshape(2, 3),
    "small": np.array([[7]], np.uint8),
    "wide": np.array([[2**40, -5]], np.int64),
    "none": np.zeros((0, 3)),
    "text": "not a number",
    "struct": {"x": 1},
}


@pytest.mark.parametrize("packed", [False, True])
def test_equals_scipy(packed, tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, ARRAYS, do_compression=packed)
    names = ["a", "column", "table", "small", "wide", "none"]
    found, want = read_numbers(path, names), loadmat(path)
    assert found.keys() == set(names)
    for name in names:
        np.testing.assert_array_equal(found[name], want[name].ravel(order="F"))
        assert found[name].dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.array([[0.5]])}, "not whole"),
        ({"a": np.array([[np.nan]])}, "not finite"),
        ({"a": np.array([[1j]])}, "no real numbers"),
        ({"a": "text"}, "no real numbers"),
        ({"b": np.ones((1, 1))}, "no a"),
    ],
)
def test_other_content(arrays, message, tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, arrays)
    with pytest.raises(ValueError, match=message) as error:
        read_numbers(path, ["a"])
    assert str(path) in str(error.value)


def test_cut_anywhere(tmp_path):
    path, buffer = tmp_path / "a.mat", io.BytesIO()
    savemat(buffer, {"a": np.arange(40.0)[None]})
    whole = buffer.getvalue()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.mat"):
            read_numbers(path, ["a"])
