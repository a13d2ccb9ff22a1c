"""Prints the requirements of extras of pyproject.toml, so that pip need not build vpd again."""

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main(names: list[str]) -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    for name in names:
        print(*extras[name], sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
