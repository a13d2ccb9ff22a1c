"""Faults that a machine has: files that cannot grow, disks that are full, folders without a right
to write, processes that are killed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
_NOBODY = 65534


@contextmanager
def files_end_at(count: int) -> Iterator[None]:
    """No file of this process grows past so many bytes: the write that would fails (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(folder: Path, count: int) -> Iterator[bool]:
    """A file system of so many bytes on a folder; False where this process may not mount one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={count}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and not subprocess.run(words, capture_output=True).returncode
    try:
        yield bool(mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """A copy of a folder that nobody here may write to, not even root."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    copy = shutil.copytree(folder, place / "a")
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield copy
    finally:
        if user == 0:
            os.seteuid(0)
        for path in (copy, *(p for p in copy.rglob("*") if p.is_dir())):
            path.chmod(0o755)
        shutil.rmtree(place)


def start(*words: str, log: Path) -> subprocess.Popen[bytes]:
    """`vpd ...` as a process; what it prints goes to a file."""
    # A shell's background jobs ignore interrupts, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    try:
        with log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "vpd.cli", *words],
                stdout=out,
                stderr=out,
                env={**env, "OMP_NUM_THREADS": "1"},
            )
    finally:
        signal.signal(signal.SIGINT, before)


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder by its name there, hidden files too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError, IsADirectoryError):
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found
