"""A signature becomes options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from vpd.cli.parser import parse


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    dims: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Recipe:
    """A recipe."""

    inner: Inner = field(default_factory=Inner)
    seed: int = 0
    """Seed of everything."""
    mode: Literal["a", "b"] = "a"


def look(image: Path, text: str, *, steps: list[int] | None = None, deep: bool = False) -> None:
    """Looks.

    Args:
        image: a file
            of any kind
        steps: up to 100 % of them
    """


def cook(config: Recipe, *, stage: str = "all") -> None:
    """Cooks."""


def test_positionals_lists_and_switches():
    values, as_json = parse("look", look, ["a.png", "-1 cube", "--steps", "1", "2", "--deep"])
    assert values == {"image": Path("a.png"), "text": "-1 cube", "steps": [1, 2], "deep": True}
    assert not as_json
    values, as_json = parse("look", look, ["a", "b", "--no-deep", "--json"])
    assert as_json
    assert values["steps"] is None
    assert not values["deep"]


def test_a_config_is_rebuilt_from_file_and_overrides(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("seed: 3\ninner:\n  rate: 0.5\n  dims: [4, 5, 6]\n")
    values, _ = parse("cook", cook, ["--config", str(path), "--inner.rate", "2", "--stage", "x"])
    assert values == {"config": Recipe(Inner(2.0, (4, 5, 6)), 3), "stage": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 3", "'sed' is not accepted; did you mean 'seed'?"),
        ("inner:\n  rte: 3", "'rte'; did you mean 'rate'?"),
        ("inner: 3", r"inner: expected fields \(rate, dims\), got 3"),
        ("inner:\n  rate: 1" + 400 * "0", "a number is too large"),
        ("mode: a\nseed:", "seed: expected a value, got none"),
        ("inner:\n  rate: null", "inner.rate: expected a value, got none"),
        ("seed: many", "seed"),
        ("mode: c", "Literal"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="(?s)" + message.replace("?", r"\?")) as caught:
        parse("cook", cook, ["--config", str(path)])
    assert "\n" not in str(caught.value)


def test_help_texts_come_from_the_docstring(capsys):
    with pytest.raises(SystemExit):
        parse("look", look, ["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "a file of any kind" in out
    assert "up to 100 % of them" in out
    with pytest.raises(SystemExit):
        parse("cook", cook, ["--help"])
    assert "Seed of everything" in capsys.readouterr().out
