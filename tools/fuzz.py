"""Feeds damaged files to everything that reads files of others, until the time is over.

A reader may return or raise ValueError, TypeError or OSError. Anything else, a crash, or a hang is
a finding: the file is kept and the exit code is 1. Cases are numbered, so `--first N --count 1`
repeats one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 1000  # cases a process; a process that dies costs one batch
SECONDS_A_BATCH = 60
MEMORY_BYTES = 16 * 2**30  # of address space, PyTorch's libraries included
EXPECTED = (ValueError, TypeError, OSError)
# Values that length and offset fields do not expect.
WORDS = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1]
TOKENS = [b"-1", b"1e999", b"NaN", b"null", b"{}", b"[[", b'""', b"\\u0000", b"\xff", b"9" * 20]


def corpus() -> dict[str, tuple[bytes, Callable[[Path], Any]]]:
    """Name -> a whole small file and who reads it."""
    import cv2
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import save

    from vpd.config import from_dict
    from vpd.data.depth import DepthSample
    from vpd.data.labels import direct, read_stored
    from vpd.data.pickles import load_plain
    from vpd.images import read_image
    from vpd.protocol import NoiseSpec
    from vpd.weights import read_state_dict

    tensors = {"a.weight": torch.ones(3, 4), "b": torch.zeros(5, dtype=torch.int64)}
    checkpoints = {}
    for name, zipped in (("torch.pth", True), ("legacy.pth", False)):
        buffer = io.BytesIO()
        torch.save(
            {"state_dict": tensors, "epoch": 3}, buffer, _use_new_zipfile_serialization=zipped
        )
        checkpoints[name] = (buffer.getvalue(), read_state_dict)
    refs = [
        {"ref_id": 1, "sentences": [{"raw": "the red ball", "tokens": ["red"]}], "box": (1, 2.5)}
    ]
    picture = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)
    label, depth = picture[..., 0] % 8, picture[..., 0].astype(np.uint16) * 300
    palette, array = io.BytesIO(), io.BytesIO()
    Image.fromarray(label).convert("P").save(palette, "PNG")
    np.save(array, depth.astype(np.float32))

    def read_spec(path: Path) -> NoiseSpec:
        return from_dict(NoiseSpec, json.loads(path.read_bytes()))

    def read_label(path: Path) -> Any:
        return direct(8).decode(read_stored(path), path)

    def read_depth(path: Path) -> Any:
        return DepthSample("", path, path, 0, 0.001).read_depth()

    return {
        "weights.safetensors": (save(tensors, {"made": "by hand"}), read_state_dict),
        **checkpoints,
        "refs.p": (pickle.dumps(refs, protocol=2), load_plain),
        "image.png": (cv2.imencode(".png", picture)[1].tobytes(), read_image),
        "image.jpg": (cv2.imencode(".jpg", picture)[1].tobytes(), read_image),
        "label.png": (cv2.imencode(".png", label)[1].tobytes(), read_label),
        "palette.png": (palette.getvalue(), read_label),
        "depth.png": (cv2.imencode(".png", depth)[1].tobytes(), read_depth),
        "depth.npy": (array.getvalue(), read_depth),
        "spec.json": (json.dumps(NoiseSpec().to_dict()).encode(), read_spec),
    }


def damage(data: bytes, rng: random.Random) -> bytes:
    """One to four random changes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            del out[at : at + rng.randrange(1, 16)]
        elif kind == 3:
            width = rng.choice(["<B", "<H", "<I", "<Q", ">I"])
            word = rng.choice(WORDS) % 256 ** struct.calcsize(width)
            out[at : at + struct.calcsize(width)] = struct.pack(width, word)
        elif kind == 4:
            out[at : at + rng.choice((0, 1, 4))] = rng.choice(TOKENS)
        else:
            start = rng.randrange(len(data))
            out[at:at] = data[start : start + rng.randrange(1, 64)]
    return bytes(out)


def run_batch(first: int, count: int, folder: Path) -> None:
    """Runs cases in this process; the one under way lies in ``folder`` with its number."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    files = corpus()
    names = sorted(files)
    for number in range(first, first + count):
        rng = random.Random(number)
        name = names[number % len(names)]
        data, read = files[name]
        path = folder / f"{number}-{name}"
        path.write_bytes(damage(data, rng))
        try:
            read(path)
        except EXPECTED:
            pass
        except Exception as error:
            print(f"case {number} ({name}): {type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(1)
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="when to stop")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, help="run this many cases in this process, then stop")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="findings go here")
    arguments = parser.parse_args()
    if arguments.count is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        run_batch(arguments.first, arguments.count, arguments.keep)
        return

    end = time.monotonic() + arguments.seconds
    first, findings = arguments.first, 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, __file__, "--first", str(first), "--count", str(BATCH)]
            quiet = {**os.environ, "OPENCV_LOG_LEVEL": "SILENT"}
            try:
                process = subprocess.run(
                    [*command, "--keep", name],
                    stderr=subprocess.PIPE,
                    timeout=SECONDS_A_BATCH,
                    env=quiet,
                )
                failed, text = process.returncode, process.stderr.decode(errors="replace")
            except subprocess.TimeoutExpired:
                failed, text = True, f"no end within {SECONDS_A_BATCH} s"
            left = [*Path(name).iterdir()]
            if failed and not left:
                sys.exit(f"the readers did not start:\n{text}")
            if failed:
                findings += 1
                arguments.keep.mkdir(parents=True, exist_ok=True)
                kept = arguments.keep / left[0].name
                kept.write_bytes(left[0].read_bytes())
                print(f"FOUND (exit {failed}): {kept}\n{text[-500:]}")
                first = int(kept.name.split("-")[0]) + 1
            else:
                first += BATCH
    print(f"{first - arguments.first} damaged files read, {findings} findings")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
