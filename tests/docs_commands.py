"""Every command that README, CONTRIBUTING and docs tell a reader to type, and which test runs it.

A line of a bash block is run as it stands by test_readme.py, unless a table below says otherwise.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from vpd.cli import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("vpd", "make", "python", "pip", "cmake", "torchrun", "srun", "source", "pre-commit")

# Needs what is not here: nothing is run, the options of vpd's own commands are read.
NOT_HERE = {
    r"^vpd (?!info ).*--(image_|vit_)?weights (?!random)": "weights of others",
    r"^vpd data (make (nyuv2|ade20k-panoptic) |check cityscapes )": "pictures of others",
    r"^torchrun .*refcoco": "pictures of others; test_distributed.py trains by two processes",
    r"--model runs/": "the outcome of a long training",
    r"^srun ": "a SLURM cluster; tests/train/sweep reads what is submitted",
    r"^(source|pre-commit) ": "the reader's shell and checkout",
}
# Run by something else: a test, a script that CI runs, or a recipe of the Makefile.
ELSEWHERE = {
    r"^make (test|build|dev)$": ".ci/run",
    r"^pip install (scikit-build-core|--no-build-isolation \.$)": "tests/test_packaging.py",
    r"^cmake -S \. .*-DVPD_PYTHON=OFF|^cmake --build build/cpp": "Makefile",
    r"^python -m pytest ": "Makefile",  # make test-all
    r"^make fuzz": "tests/fuzz/test_fuzzer.py",
    r"^cmake --install|^cmake .*build/examples|^build/examples/": "tests/test_cpp_examples.py",
}
# Take long, so the slow tier runs them with these options on top, if any.
_TRAIN = (
    "--loop.steps 2 --loop.batch 4 --loop.val_every 2 --loop.checkpoint_every 2 --loop.warmup 1"
)
_TRAIN += " --data.limit 4 --data.val_limit 2 --data.cache_dir cache --progress false"
SMALL = {
    "train": f"{_TRAIN} --data.final_limit 2",
    "train semantic": f"{_TRAIN} --data.final_limit 2 --templates single",
    "train depth": f"{_TRAIN} --data.final_limit 2 --templates single",
    "train panoptic": f"{_TRAIN} --data.final_limit 2",
    # Pictures with a held-out word are left out.
    "train open-panoptic": f"{_TRAIN} --data.final_limit 2 --data.limit 16",
    "train edit": f"{_TRAIN} --foundation vpd-mini",
    "pretrain": "",
    "sweep": "",
    "data make": "--splits val",
    "data check": "",
    "data edits": "--steps 2 --samples 1 --sim-image 0 --sim-caption 0 --sim-direction 0",
    "serve": "--port 0",
    "tags make": "",
    "info cost": "",
    "info memory": "",
    "info memory panoptic": "",
}
# Keys of the configs of `vpd sweep` and `vpd pretrain`, which are written anew for the slow tier.
TINY: dict[str, Any] = {
    "steps": 2, "batch": 4, "val_every": 2, "checkpoint_every": 2, "log_every": 1, "warmup": 1,
    "limit": 32, "val_limit": 2, "final_limit": 2, "scenes": 8, "val_scenes": 2,
}  # fmt: skip


def blocks(language: str) -> dict[str, str]:
    """Page and number -> text of each block of a language, "" for blocks that name none."""
    found = {}
    for page in PAGES:
        fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
        texts = [text for name, text in fence.findall(page.read_text()) if name == language]
        found |= {f"{page.stem}-{i}": text for i, text in enumerate(texts)}
    return found


def commands(program: str | None = None) -> list[str]:
    """Lines of bash blocks, each once, of one program or of all; continued lines joined, comments
    and settings of the environment dropped."""
    lines = []
    for block in blocks("bash").values():
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                del words[0]
            if words and program in (None, words[0]):
                lines.append(shlex.join(words))
    return list(dict.fromkeys(lines))


def unboxed() -> list[str]:
    """Lines that begin with a program in blocks that are not marked as bash: nothing sees them."""
    lines = [line for text in blocks("").values() for line in text.splitlines()]
    return [line for line in lines if re.match(rf"({'|'.join(PROGRAMS)}) ", line)]


def said_of(line: str, table: dict[str, str]) -> str | None:
    """What a table says of a command, None if nothing."""
    return next((said for pattern, said in table.items() if re.search(pattern, line)), None)


def name_of(words: list[str]) -> str:
    """Of vpd's command that the words behind ``vpd`` begin with."""
    return next(n for n in (" ".join(words[:count]) for count in (3, 2, 1)) if n in COMMANDS)


def tiny(config: Any, key: str = "") -> Any:
    """A config with the values of TINY at its keys, nested or dotted, wherever they stand."""
    if key in ("at", "inference", "pictures"):  # names, and what is not trained
        return config
    if isinstance(config, dict):
        return {name: tiny(value, str(name).split(".")[-1]) for name, value in config.items()}
    return TINY.get(key, config)
