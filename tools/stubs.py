"""Writes vpd/_C.pyi, the types of the compiled module; ``--check`` only compares."""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).parent.parent / "vpd" / "_C.pyi"
HEADER = '"""Types of the compiled core. Written by tools/stubs.py; do not edit."""\n\n'
# pybind11 spells out all that it converts; callers pass the plain types.
PLAIN = {
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "typing.SupportsFloat | typing.SupportsIndex": "float",
    "from __future__ import annotations\n": "",
}


def run(*command: str, text: str | None = None) -> str:
    result = subprocess.run(command, input=text, text=True, capture_output=True)
    if result.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def generate() -> str:
    with tempfile.TemporaryDirectory() as folder:
        # PyTorch comes first: the module needs its libraries.
        code = "import torch, pybind11_stubgen; pybind11_stubgen.main()"
        options = ["--print-safe-value-reprs", ".*", "--exit-code"]
        run(sys.executable, "-c", code, "vpd._C", "-o", folder, *options)
        text = (Path(folder) / "vpd" / "_C.pyi").read_text()
    text = text.split('"""\n', 2)[-1]  # behind the module's docstring
    for verbose, plain in PLAIN.items():
        text = text.replace(verbose, plain)
    ruff = [sys.executable, "-m", "ruff"]
    name = ["--stdin-filename", str(STUB), "-"]
    text = run(*ruff, "check", "--quiet", "--fix-only", *name, text=HEADER + text)
    return run(*ruff, "format", *name, text=text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file is out of date")
    check = parser.parse_args().check
    new = generate()
    if not check:
        STUB.write_text(new)
        return
    old = STUB.read_text() if STUB.exists() else ""
    if old != new:
        diff = difflib.unified_diff(
            old.splitlines(), new.splitlines(), str(STUB), "compiled module", lineterm=""
        )
        sys.exit("\n".join([*diff, "vpd/_C.pyi is out of date: run `make stubs`"]))


if __name__ == "__main__":
    main()
