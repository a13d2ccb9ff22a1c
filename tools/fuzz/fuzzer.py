"""libFuzzer around one target, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fuzz import CORPUS
from fuzz.targets import TARGETS

TOOLS = Path(__file__).parents[1]
DICTIONARIES = CORPUS.parent / "dictionaries"
LIMITS = ["-timeout=20", "-rss_limit_mb=4096", "-max_len=65536"]  # of an input: seconds, MB, bytes
CORE = {
    "safetensors": ("safetensors files", ("safetensors",)),
    "torch-zip": ("PyTorch checkpoints", ("pickle", "zip")),
    "zip": ("zip directories", ("zip",)),
    "pickle": ("the pickle machine", ("pickle",)),
    "json": ("JSON", ("json",)),
    "merges": ("vocabularies", ("text",)),
    "text": ("sentences (tokenizer)", ("text",)),
}
"""Targets of vpd_fuzz: what they read, and their dictionaries."""


@dataclass
class Outcome:
    """What became of a target."""

    target: str
    what: str
    seconds: float = 0.0
    inputs: int = 0
    findings: int = 0


@dataclass(frozen=True)
class Fuzzer:
    """libFuzzer around one target.

    Attributes:
        name: of the target.
        program: vpd_fuzz.
        keep: folder of logs, findings and inputs that reached new code.
    """

    name: str
    program: Path
    keep: Path

    @property
    def core(self) -> str | None:
        """The name without "core-", of targets that have it."""
        return self.name.removeprefix("core-") if self.name.startswith("core-") else None

    def what(self) -> str:
        return CORE[self.core][0] if self.core else TARGETS[self.name].what

    def call(self, arguments: list[str], log: IO[str] | None = None) -> int:
        """The exit code of a process with libFuzzer's arguments; what it says goes to ``log``."""
        with tempfile.TemporaryDirectory() as folder:
            if self.core:
                command = [str(self.program), self.core, f"{folder}/input"]
            else:
                command = [sys.executable, "-m", "fuzz.child", self.name, folder]
            env = {**os.environ, "OPENCV_LOG_LEVEL": "SILENT", "OMP_NUM_THREADS": "1"}
            # A picture may have 2^30 pixels, if OpenCV is not told otherwise, and so take 8 GB.
            env["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(2**26)
            env["PYTHONPATH"] = os.pathsep.join([str(TOOLS), env.get("PYTHONPATH", "")])
            env["ASAN_OPTIONS"] = "allocator_may_return_null=1:max_allocation_size_mb=4096"
            # PyTorch keeps registries until the process ends.
            env["ASAN_OPTIONS"] += ":detect_leaks=0"
            return subprocess.run(
                [*command, *arguments], stderr=log, stdout=log, env=env
            ).returncode

    def run(self, seconds: int) -> Outcome:
        """Feeds the target for some seconds, not counting imports, or until a finding."""
        grown, found = self.keep / "grown" / self.name, self.keep / "found"
        seeds = CORPUS / (self.core or self.name)
        log = self.keep / "logs" / f"{self.name}.txt"
        for folder in (grown, found, log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        arguments = [str(grown), str(seeds), f"-max_total_time={seconds}", *LIMITS]
        arguments += ["-print_final_stats=1", f"-artifact_prefix={found}/{self.name}-"]
        words = CORE[self.core][1] if self.core else TARGETS[self.name].form.words
        if words:  # libFuzzer takes one dictionary
            joined = log.with_suffix(".dict")
            joined.write_text("".join((DICTIONARIES / f"{one}.dict").read_text() for one in words))
            arguments.append(f"-dict={joined}")
        begin = time.monotonic()
        with log.open("w") as lines:
            code = self.call(arguments, lines)
        said = log.read_text(errors="replace")
        took = time.monotonic() - begin
        units = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
        done = re.search(r"^Done \d+ runs in (\d+) second", said, re.MULTILINE)
        if units is None or (code == 0 and done is None):
            sys.exit(f"{self.name}: the reader did not start:\n{said[-1500:]}")
        if code != 0:
            print(f"FOUND by {self.name}, see {log} and {found}:\n{said[-1500:]}", flush=True)
        took = float(done[1]) if done else took
        return Outcome(self.name, self.what(), took, int(units[1]), int(code != 0))
