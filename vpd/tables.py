"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown_table"]


def markdown_table(lines: Sequence[Sequence[str]], left: int = 0) -> str:
    """A Markdown table that reads well as it is: columns aligned, the first ``left`` of them to the
    left, the others to the right.

    Args:
        lines: Cells; the first line is the head.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    text = ""
    for line in (lines[0], rules, *lines[1:]):
        cells = zip(line, widths, strict=True)
        padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(cells)]
        text += "| " + " | ".join(padded) + " |\n"
    return text
