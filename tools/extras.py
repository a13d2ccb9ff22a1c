"""Prints the requirements of extras of pyproject.toml, so that pip need not build vpd again."""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def requirements(names: list[str]) -> list[str]:
    """Those of some extras, and of the extras that these name as vpd[...], each once."""
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    found: dict[str, None] = {}
    for name in names:
        if name not in extras:
            sys.exit(f"extras.py: expected one of {', '.join(extras)}, got {name}")
        for line in extras[name]:
            own = re.fullmatch(r"vpd\[(.+)\]", line)
            found |= dict.fromkeys(requirements(own[1].split(",")) if own else [line])
    return list(found)


if __name__ == "__main__":
    print(*requirements(sys.argv[1:]), sep="\n")
