"""The cheapest assignment against SciPy's, and against trying all of them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from vpd import losses

SIZES = [
    (1, 1),
    (3, 3),
    (5, 9),
    (9, 5),
    (1, 7),
    (7, 1),
    (100, 100),
    (100, 30),
    (40, 300),
    (300, 40),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_like_scipy(size, dtype):
    cost = torch.randn(size).to(dtype)
    rows, columns = losses.match(cost)
    want_rows, want_columns = linear_sum_assignment(cost.numpy())
    assert rows.dtype == columns.dtype == torch.int64
    assert np.array_equal(rows, want_rows)
    assert np.array_equal(columns, want_columns)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), rows=st.integers(1, 8), columns=st.integers(1, 8))
def test_ties_cost_the_same(data, rows, columns):
    """Few distinct costs, so that many assignments are the cheapest."""
    values = st.integers(-2, 2) | st.sampled_from([1e9, -1e9])
    cost = torch.tensor(
        data.draw(st.lists(values, min_size=rows * columns, max_size=rows * columns)),
        dtype=torch.float64,
    ).view(rows, columns)
    at, to = losses.match(cost)
    assert len(at) == len(to) == min(rows, columns)
    assert torch.equal(at, at.unique())
    assert len(to.unique()) == len(to)
    want = linear_sum_assignment(cost.numpy())
    assert cost[at, to].sum() == cost.numpy()[want].sum()


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (5, 3)])
def test_no_assignment_is_cheaper(size):
    cost = torch.randn(size, dtype=torch.float64)
    rows, columns = losses.match(cost)
    flat = cost if size[0] <= size[1] else cost.t()
    least = min(
        sum(flat[i, j] for i, j in enumerate(order))
        for order in permutations(range(flat.shape[1]), flat.shape[0])
    )
    assert float(cost[rows, columns].sum()) == pytest.approx(float(least), rel=1e-12)


def test_numbers_of_all_sizes_and_kinds():
    cost = 10.0 ** (40 * torch.rand(20, 20, dtype=torch.float64) - 20)
    rows, columns = losses.match(cost)
    assert torch.equal(columns, torch.from_numpy(linear_sum_assignment(cost.numpy())[1]))
    whole = torch.randint(-50, 50, (6, 4))
    at, to = losses.match(whole)
    want = linear_sum_assignment(whole.numpy())
    assert whole[at, to].sum() == whole.numpy()[want].sum()
    assert losses.match(cost.t().requires_grad_())[0].equal(rows)


@pytest.mark.parametrize("size", [(0, 0), (0, 3), (3, 0)])
def test_empty(size):
    rows, columns = losses.match(torch.zeros(size))
    assert rows.shape == columns.shape == (0,)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("size", [(3, 5), (5, 3)])
def test_costs_that_are_not_finite(bad, size):
    cost = torch.randn(size)
    cost[2, 1] = float(bad)
    with pytest.raises(ValueError, match=rf"match: costs must be finite, got {bad} at \[2, 1\]"):
        losses.match(cost)


@pytest.mark.parametrize("cost", [torch.zeros(3), torch.zeros(2, 2, 2), torch.zeros(2, 2) * 1j])
def test_bad_input_is_explained(cost):
    with pytest.raises(ValueError, match=r"match: cost must be real \[N, M\], got "):
        losses.match(cost)
