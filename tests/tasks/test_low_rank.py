"""Models cut down to a size: low-rank changes of their foundation."""

from __future__ import annotations

import copy
import json

import pytest
import tiny
import torch

from vpd.tasks import store
from vpd.tasks.low_rank import expand, shrink
from vpd.weights import read_state_dict, save_weights


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "a.weight": (24, 16),
        "b.weight": (12, 8, 3, 3),
        "b.bias": (12,),
        "far.weight": (8, 8),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def changed(base: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """All weights, each changed by a matrix of that rank."""
    state = {}
    for i, (name, value) in enumerate(base.items()):
        generator = torch.Generator().manual_seed(i)
        if value.dim() == 1:
            state[name] = value + 1
            continue
        left = torch.randn(len(value), rank, generator=generator)
        right = torch.randn(rank, value[0].numel(), generator=generator)
        state[name] = value + 0.1 * (left @ right).reshape(value.shape)
    return state


def test_a_change_of_low_rank_is_kept_whole():
    base = weights()
    state = changed(base, rank=2)
    smaller, cut = shrink(state, base, 3000)
    assert {"a.weight:A", "a.weight:B", "a.weight:scale", "b.weight:A", "b.bias"} <= set(smaller)
    assert smaller["b.weight:A"].shape == (2, 72)
    assert smaller["b.weight:B"].shape == (12, 2)
    assert cut < 1e-9
    back = expand(smaller, base)
    assert set(back) == set(state)
    for name, value in state.items():
        error, change = (back[name] - value).norm(), (value - base[name]).norm()
        assert error <= 0.01 * change  # of 8 bits


def test_what_is_cut_is_what_singular_values_say():
    base = {"w": weights()["a.weight"]}
    state = changed(base, rank=16)
    smaller, cut = shrink(state, base, 8 + 3 * 101 + 5 * (24 + 16 + 4))
    change = (state["w"] - base["w"]).double()
    values = torch.linalg.svdvals(change).square()
    assert smaller["w:A"].shape == (5, 16)
    assert cut == pytest.approx(float(values[5:].sum() / values.sum()), rel=1e-4)
    error = (expand(smaller, base)["w"] - state["w"]).double().square().sum()
    assert float(error / change.square().sum()) == pytest.approx(cut, rel=1e-3)


def test_with_room_enough_nothing_changes():
    base = weights()
    state = changed(base, rank=16) | {"head.weight": torch.ones(3, 3), "steps": torch.tensor(7)}
    smaller, cut = shrink(state, base, 10**6)
    assert cut == 0
    assert set(smaller) == set(state)
    assert all(torch.equal(smaller[name], state[name]) for name in state)


def test_what_the_foundation_lacks_must_fit():
    with pytest.raises(ValueError, match=r"expected at least 5\d\d\d bytes, got 4000"):
        shrink({"head.weight": torch.ones(40, 31)}, {}, 4000)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s: s.pop("a.weight:A"), "a.weight: expected :A, :B, :scale and a .* missing"),
        (lambda s: s.pop("a.weight:scale"), "a.weight: .* missing"),
        (
            lambda s: s.update({f"x:{part}": torch.ones(1, 1) for part in ("A", "B", "scale")}),
            "x: .* missing",
        ),
        (
            lambda s: s.update({"b.weight:A": torch.ones(2, 70)}),
            r":A \[rank, 72\], :B \[12, rank\] and :scale \[rank\], got \[2, 70\]",
        ),
        (lambda s: s.update({"b.weight:B": torch.ones(12)}), r"got \[2, 72\], \[12\] and \[2\]"),
    ],
)
def test_halves_that_do_not_fit(change, word):
    base = weights()
    smaller, _ = shrink(changed(base, rank=2), base, 3000)
    change(smaller)
    with pytest.raises(ValueError, match=word):
        expand(smaller, base)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a foundation and of a model fine-tuned from it."""
    folder = tmp_path_factory.mktemp("models")
    foundation = tiny.foundation()
    store.save(foundation, folder / "foundation")
    model = tiny.segmenter()
    base = foundation.state_dict()
    model.load_state_dict({k: base.get(k, v) for k, v in model.state_dict().items()})
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(model.named_parameters()):
            if parameter.dim() < 2 or not name.startswith("unet."):
                continue
            generator = torch.Generator().manual_seed(seed)
            left = torch.randn(len(parameter), 2, generator=generator)
            right = torch.randn(2, parameter[0].numel(), generator=generator)
            parameter += 0.01 * (left @ right).reshape(parameter.shape)
    card = {"metrics": {"oIoU": 1.0}, "seed": 3}
    name = str(folder / "foundation")
    store.save(model, folder / "model", foundation=name, card=card)
    return folder


def test_a_compacted_model_is_loaded_as_any_other(models, tmp_path):
    size = (models / "model" / "model.safetensors").stat().st_size
    cut = store.compact(models / "model", tmp_path / "small", 0.6 * size / 1e6)
    assert (tmp_path / "small" / "model.safetensors").stat().st_size <= 0.6 * size
    assert cut < 1e-4
    card = json.loads((tmp_path / "small" / "config.json").read_text())["card"]
    assert card["seed"] == 3
    assert card["compacted"]["metrics_before"] == {"oIoU": 1.0}
    assert "metrics" not in card
    whole, small = store.load(models / "model"), store.load(tmp_path / "small")
    for (name, want), got in zip(
        whole.state_dict().items(), small.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=2e-3, atol=2e-3, msg=name)
    again = store.compact(tmp_path / "small", tmp_path / "again", 0.6 * size / 1e6)
    assert again < 1e-4  # a compacted model can be compacted


def test_models_that_cannot_be_compacted(models, tmp_path):
    with pytest.raises(ValueError, match="names its foundation, got one without"):
        store.compact(models / "foundation", tmp_path / "out", 1)
    with pytest.raises(ValueError, match="another folder than the model's own"):
        store.compact(models / "model", models / "model", 1)
    with pytest.raises(ValueError, match="cannot be reduced"):
        store.compact(models / "model", tmp_path / "out", 0.001)
    assert not (tmp_path / "out").exists()


def test_half_of_a_change_is_refused_by_file(models, tmp_path):
    size = (models / "model" / "model.safetensors").stat().st_size
    store.compact(models / "model", tmp_path / "small", 0.6 * size / 1e6)
    path = tmp_path / "small" / "model.safetensors"
    state = copy.copy(read_state_dict(path)[0])
    state.pop(next(name for name in state if name.endswith(":A")))
    save_weights(state, path)
    with pytest.raises(ValueError, match=r"model\.safetensors: unet\..* is missing"):
        store.load(tmp_path / "small")
