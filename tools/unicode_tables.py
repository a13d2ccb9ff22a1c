"""Writes csrc/text/unicode_tables.h from this Python's Unicode data; ``--check`` only compares."""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

TABLES = Path(__file__).parent.parent / "csrc" / "text" / "unicode_tables.h"
# White_Space of the Unicode character database, which Python's unicodedata does not have.
SPACES = [(0x9, 0xD), (0x20, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680)]
SPACES += [(0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F)]
SPACES += [(0x3000, 0x3000)]
HEADER = """\
#pragma once
// Character classes and lower case of Unicode {version}. Written by tools/unicode_tables.py; do not
// edit.
#include <cstdint>

namespace vpd::text {{

struct Range {{
  char32_t first;
  char32_t last;
}};

// Every `step`-th character from first to last: its lower case is `shift` further.
struct LowerRange {{
  char32_t first;
  char32_t last;
  uint32_t step;
  int32_t shift;
}};

// clang-format off
"""


def category_ranges(accepts: Callable[[str], bool]) -> list[tuple[int, int]]:
    """First and last character of each run whose category is accepted."""
    runs: list[tuple[int, int]] = []
    for code in range(0x110000):
        if accepts(unicodedata.category(chr(code))):
            if runs and runs[-1][1] == code - 1:
                runs[-1] = (runs[-1][0], code)
            else:
                runs.append((code, code))
    return runs


def lower_ranges() -> list[tuple[int, int, int, int]]:
    """(first, last, step, shift) of characters that have a lower case of one character."""
    runs: list[tuple[int, int, int, int]] = []
    for code in range(0x110000):
        small = chr(code).lower()
        if len(small) != 1 or ord(small) == code:
            continue
        shift = ord(small) - code
        if runs and runs[-1][3] == shift:
            first, last, step, _ = runs[-1]
            gap = code - last
            if gap <= 2 and (first == last or gap == step):
                runs[-1] = (first, code, gap, shift)
                continue
        runs.append((code, code, 1, shift))
    return runs


def table(kind: str, name: str, rows: Iterable[tuple[int, ...]], hexadecimal: int) -> str:
    """An array, as many rows a line as fit."""
    lines = [""]
    for row in rows:
        fields = [f"{n:#x}" if i < hexadecimal else str(n) for i, n in enumerate(row)]
        cell = "{" + ", ".join(fields) + "},"
        if len(lines[-1]) + len(cell) > 97:
            lines.append("")
        lines[-1] += f" {cell}"
    body = "\n".join(f" {line}" for line in lines)
    return f"inline constexpr {kind} {name}[] = {{\n{body}\n}};\n"


def generate() -> str:
    return "\n".join(
        [
            HEADER.format(version=unicodedata.unidata_version),
            table("Range", "kLetters", category_ranges(lambda c: c[0] == "L"), 2),
            table("Range", "kNumbers", category_ranges(lambda c: c[0] == "N"), 2),
            table("Range", "kSpaces", SPACES, 2),
            table("LowerRange", "kLower", lower_ranges(), 2),
            "// clang-format on\n\n}  // namespace vpd::text\n",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    text = generate()
    if not parser.parse_args().check:
        TABLES.write_text(text)
    elif TABLES.read_text() != text:
        sys.exit(f"{TABLES.name} is not what tools/unicode_tables.py writes")


if __name__ == "__main__":
    main()
