"""Damages: from bytes that a reader accepts to bytes that it may not expect.

libFuzzer changes bytes; functions here change what the bytes say, and hand it the pieces that have
no structure of their own.
"""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import random
import zipfile
from collections.abc import Callable
from typing import Any

import yaml

Change = Callable[[bytes], bytes]
"""libFuzzer's change of some bytes."""

# Values that a field of a parsed file does not expect.
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2, 2**31, 2**53 + 1, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308, math.nan,
    math.inf, "", "a", "1", "../../etc/passwd", "a\0b", "\ud800", "x" * 300, [], [[]], [1], [1, 2],
    [0.5] * 8, {}, {"a": 1}, {"id": 1}, {"size": [1, 1], "counts": "0"},
]  # fmt: skip


def damage_bytes(data: bytes, rng: random.Random, change: Change) -> bytes:
    """Whatever libFuzzer does."""
    return change(data)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside, once: YAML may put a list into itself."""
    found: list[tuple[Any, Any]] = []
    todo, seen = [tree], set()
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        keys = node.keys() if isinstance(node, dict) else range(len(node))
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], (dict, list)):
                todo.append(node[key])
    return found


def damage_tree(tree: Any, rng: random.Random) -> Any:
    """One to three changes of plain data; the tree itself is changed."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = _places(tree) if isinstance(tree, (dict, list)) else []
        if not places or rng.random() < 0.02:
            tree = copy.deepcopy(rng.choice(VALUES))
            continue
        node, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0:
            del node[key]
        elif kind == 1:
            other, its = rng.choice(places)
            if its in other if isinstance(other, dict) else its < len(other):
                node[key] = copy.deepcopy(other[its])
        elif kind == 2 and isinstance(node, list):
            node.insert(key, copy.deepcopy(rng.choice([*VALUES, *node])))
        elif kind == 3 and isinstance(node, dict):
            node[rng.choice(["id", "", "size", "a"])] = node.pop(key)
        elif kind == 4 and isinstance(node[key], (int, float)):
            node[key] = node[key] * rng.choice((-1, 0.5, 2, 1000, 2**40)) + rng.choice((0, 1, -1))
        else:
            node[key] = copy.deepcopy(rng.choice(VALUES))
    return tree


def damage_json(data: bytes, rng: random.Random, change: Change) -> bytes:
    """Half of the time what the file says, else its bytes."""
    if rng.random() < 0.5:
        try:
            tree = damage_tree(json.loads(data), rng)
            return json.dumps(tree).encode()
        except (ValueError, RecursionError, OverflowError, KeyError):
            pass
    return change(data)


def damage_yaml(data: bytes, rng: random.Random, change: Change) -> bytes:
    """As :func:`damage_json`."""
    if rng.random() < 0.5:
        try:
            return yaml.safe_dump(damage_tree(yaml.safe_load(data), rng)).encode(errors="replace")
        except (ValueError, yaml.YAMLError, OverflowError, RecursionError, KeyError):
            pass
    return change(data)


def damage_pickle(data: bytes, rng: random.Random, change: Change) -> bytes:
    """As :func:`damage_json`, for pickles of plain data."""
    if rng.random() < 0.5:
        try:
            tree = damage_tree(json.loads(json.dumps(_Plain(io.BytesIO(data)).load())), rng)
            return pickle.dumps(tree, protocol=rng.choice((2, 4)))
        except Exception:  # a corpus has damaged pickles too
            pass
    return change(data)


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def damage_safetensors(data: bytes, rng: random.Random, change: Change) -> bytes:
    """Half of the time the header alone, with its length made true again."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8 or rng.random() < 0.5:
        return change(data)
    header = damage_json(data[8 : 8 + length], rng, change)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def damage_zip(data: bytes, rng: random.Random, change: Change) -> bytes:
    """Half of the time one entry, with the archive written anew around it."""
    if rng.random() < 0.5:
        return change(data)
    try:
        entries = []
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                entries.append((name, archive.read(name)))
    except Exception:  # zipfile raises nearly anything on a damaged file
        return change(data)
    if not entries:
        return change(data)
    pickles = [i for i, (name, _) in enumerate(entries) if name.endswith(".pkl")]
    chosen = rng.choice(pickles if pickles and rng.random() < 0.8 else range(len(entries)))
    entries[chosen] = (entries[chosen][0], change(entries[chosen][1]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()
