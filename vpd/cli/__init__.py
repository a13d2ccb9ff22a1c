"""The command line ``vpd``, one file per command. What a command does is also one Python call."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpd.cli.answer import Answer

__all__ = ["COMMANDS", "main"]

# Command -> (module:function, summary). Imported when used, so that `vpd --help` is quick and no
# command needs another's
# dependencies.
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": (
        "vpd.cli.predict:predict",
        "masks by sentence, classes or depth, of an image, a folder or a video",
    ),
    "edit": ("vpd.cli.edit:edit", "edit an image as an instruction says"),
    "maps": (
        "vpd.cli.maps:maps",
        "draw what each word or token attends to, or clusters of features",
    ),
    "evaluate": ("vpd.cli.evaluate:evaluate", "score a model on a data set"),
    "evaluate edit": (
        "vpd.cli.evaluate_edit:evaluate",
        "score an editor: similarities, errors and their trade-off",
    ),
    "serve": ("vpd.cli.serve:serve", "a page on this machine on which models are tried"),
    "ground": (
        "vpd.cli.ground:ground",
        "score the attention maps of words: a pre-trained model's own grounding",
    ),
    "probe": (
        "vpd.cli.probe:probe",
        "compare latents, features and attention maps with and without noise",
    ),
    "demo": (
        "vpd.cli.demo:demo",
        "a tour of the shipped model on unseen scenes: table and pictures",
    ),
    "train": ("vpd.cli.train:train", "train a referring segmenter"),
    "train semantic": ("vpd.cli.train:train_semantic", "train a semantic segmenter"),
    "train panoptic": ("vpd.cli.train:train_panoptic", "train a panoptic segmenter"),
    "train open-panoptic": (
        "vpd.cli.train:train_open_panoptic",
        "train a panoptic segmenter whose classes are words given with a picture",
    ),
    "train depth": ("vpd.cli.train:train_depth", "train a depth estimator"),
    "train edit": ("vpd.cli.train:train_edit", "train an editor"),
    "sweep": ("vpd.cli.sweep:sweep", "train a grid of models and compare them"),
    "pretrain": ("vpd.cli.pretrain:pretrain", "pre-train a small diffusion model on Tabletop"),
    "data make": ("vpd.cli.data:make", "write a generated data set to disk"),
    "data edits": ("vpd.cli.data:edits", "make edited pairs for triplets of texts"),
    "data check": ("vpd.cli.data:check", "say whether a data set on disk is whole"),
    "classes build": (
        "vpd.cli.classes:build",
        "make embeddings of class names, for semantic segmentation and depth",
    ),
    "tags make": ("vpd.cli.tags:make", "tag pictures by CLIP, into a file that trainings read"),
    "tags check": ("vpd.cli.tags:check", "say whether a file of tags covers pictures and words"),
    "tags score": ("vpd.cli.tags:score", "score a file of tags against true ones"),
    "convert": ("vpd.cli.convert:convert", "rewrite weights under other parameter names"),
    "compact": ("vpd.cli.compact:compact", "bring a fine-tuned model within a size"),
    "bench": ("vpd.cli.bench:bench", "list or run the benchmarks, or draw their records"),
    "info memory": (
        "vpd.cli.memory:memory",
        "trained parameters and peak memory of a training config, before it runs",
    ),
    "info memory semantic": ("vpd.cli.memory:memory_semantic", "the same of vpd train semantic"),
    "info memory panoptic": ("vpd.cli.memory:memory_panoptic", "the same of vpd train panoptic"),
    "info memory open-panoptic": (
        "vpd.cli.memory:memory_open_panoptic",
        "the same of vpd train open-panoptic",
    ),
    "info memory depth": ("vpd.cli.memory:memory_depth", "the same of vpd train depth"),
    "info memory edit": ("vpd.cli.memory:memory_edit", "the same of vpd train edit"),
    "info cmake": (
        "vpd.cli.info:cmake",
        "the folder in which CMake's find_package(vpd) finds the C++ core",
    ),
    "info cost": (
        "vpd.cli.cost:cost",
        "FLOP, bytes, memory of a training config, and its time on devices by their data sheets",
    ),
    "info cost semantic": ("vpd.cli.cost:cost_semantic", "the same of vpd train semantic"),
    "info cost panoptic": ("vpd.cli.cost:cost_panoptic", "the same of vpd train panoptic"),
    "info cost depth": ("vpd.cli.cost:cost_depth", "the same of vpd train depth"),
    "info": ("vpd.cli.info:info", "versions, devices, what is native, shipped models"),
}
_EXTRAS = ("lightning", "scipy", "tensorboard")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    What it found goes to standard output (with ``--json`` as one JSON object), progress and errors
    to standard error.

    Args:
        argv: The words behind ``vpd``; those of the process if None.

    Returns:
        0: done; 1: done in part, the rest is named; 2: a bad request, explained in one line; 130:
            interrupted. With
        ``VPD_DEBUG=1`` in the environment errors keep their traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except SystemExit as stop:  # after --help
        return int(stop.code or 0)
    except BrokenPipeError:  # `vpd info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        print("vpd: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("VPD_DEBUG") == "1":
            raise
        print(f"vpd: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from vpd import __version__

        print(f"vpd {__version__}")
        return 0
    name, rest = _command(words)
    from vpd.cli.parser import parse

    module, function_name = COMMANDS[name][0].split(":")
    function = getattr(importlib.import_module(module), function_name)
    values, as_json = parse(name, function, rest)
    _log_to_stderr()
    # Libraries print to standard output; what a command has to say must stand there alone.
    with contextlib.redirect_stdout(sys.stderr):
        answer: Answer | None = function(**values)
    if answer is None:  # another process of the same run answers
        return 0
    print(json.dumps(answer.data, indent=1, allow_nan=False) if as_json else answer.text)
    sys.stdout.flush()
    return answer.code


def _log_to_stderr() -> None:
    log = logging.getLogger("vpd")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("vpd: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def _command(words: list[str]) -> tuple[str, list[str]]:
    for length in (3, 2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    parts = [name for name in COMMANDS if name.split()[0] == words[0]]
    if parts:
        raise ValueError(f"vpd {words[0]} takes one of: {', '.join(p.split()[1] for p in parts)}")
    near = difflib.get_close_matches(words[0], COMMANDS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown command {words[0]!r}{hint} (vpd --help lists the commands)")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vpd COMMAND [options]",
            "",
            "Visual perception with pre-trained text-to-image diffusion models.",
            "",
            *lines,
            "",
            "vpd COMMAND --help says what a command takes; all take --json and --config FILE.yaml.",
        ]
    )


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").split(".")[0]


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and _package(error) in _EXTRAS:
        return f"this command needs {_package(error)}: pip install 'vpd[train]'"
    return " ".join(str(error).split()) or type(error).__name__
