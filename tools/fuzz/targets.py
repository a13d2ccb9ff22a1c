"""What is fuzzed: each reader, what damages its files, and the file it is given."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz import CORPUS, mutate, readers

EXPECTED = (ValueError, OSError)
"""What a reader may raise."""


@dataclass(frozen=True)
class Form:
    """What files say.

    Attributes:
        words: the dictionaries of ``tests/fuzz/dictionaries`` that libFuzzer is given.
        damage: makes an input of another one.
    """

    words: tuple[str, ...] = ()
    damage: Callable[[bytes, random.Random, mutate.Change], bytes] = mutate.damage_bytes


BYTES = Form()
TEXT = Form(("text",))
JSON = Form(("json",), mutate.damage_json)
YAML = Form(("yaml",), mutate.damage_yaml)
PICKLE = Form(("pickle",), mutate.damage_pickle)
SAFETENSORS = Form(("safetensors",), mutate.damage_safetensors)
TORCH_ZIP = Form(("pickle", "zip"), mutate.damage_zip)


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        what: what it reads, for tables.
        file: the damaged file, below the folder that the reader is given. Every ValueError must
            name it, or another file that contradicts it: people have ten thousand files.
        read: from that folder; other files are there already, made by ``readers``.
        form: of that file.
    """

    what: str
    file: str
    read: Callable[[Path], Any]
    form: Form = BYTES

    def check(self, data: bytes, folder: Path) -> Exception | None:
        """Reads one input; what the reader raised if that is as documented.

        Raises:
            Exception: Anything else that it raised. AssertionError: An error that names no file.
        """
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        try:
            self.read(folder)
        except EXPECTED as error:
            named = path.name in str(error) or str(folder) in str(error)
            if isinstance(error, ValueError) and not named:
                raise AssertionError(f"an error without the file's name: {error!r}") from error
            return error
        return None


TARGETS = {
    "safetensors": Target("safetensors files", "w.safetensors", readers.weights, SAFETENSORS),
    "torch-zip": Target("PyTorch checkpoints (zip)", "w.pth", readers.weights, TORCH_ZIP),
    "refer-refs": Target("REFER: `refs(...).p`", "refcoco/refs(unc).p", readers.refer, PICKLE),
    "refer-instances": Target(
        "REFER: `instances.json`", "refcoco/instances.json", readers.refer, JSON
    ),
    "coco-instances": Target(
        "COCO: instances for mask AP", "instances.json", readers.instances, JSON
    ),
    "coco-panoptic": Target(
        "COCO: panoptic JSON", "annotations/panoptic_val2017.json", readers.panoptic, JSON
    ),
    "panoptic-map": Target("COCO: panoptic id maps", "panoptic_val2017/1.png", readers.panoptic),
    "nyu-mat": Target(
        "NYUv2: the labelled download (HDF5)", "nyu_depth_v2_labeled.mat", readers.nyu_mat
    ),
    "nyu-splits": Target("NYUv2: `splits.mat`", "splits.mat", readers.nyu_mat),
    "nyu-list": Target("NYUv2: BTS's list files", "train_list.txt", readers.nyu_list, TEXT),
    "depth": Target("depth pictures (PNG)", "depth.png", readers.depth),
    "depth-npy": Target("depth pictures (NPY)", "depth.npy", readers.depth),
    "label": Target("label pictures", "label.png", readers.label),
    "image": Target("pictures to predict on", "image.png", readers.image),
    "text": Target("sentences (tokenizers)", "text.txt", readers.text, TEXT),
    "merges": Target("vocabularies (`merges.txt`)", "merges.txt", readers.merges, TEXT),
    "model-config": Target("a model's `config.json`", "config.json", readers.model_config, JSON),
    "train-config": Target("recipes (YAML)", "recipe.yaml", readers.train_config, YAML),
    "cache": Target("cached outputs", "cache.safetensors", readers.cache, SAFETENSORS),
    "triplets": Target("triplets of texts", "a.jsonl", readers.triplets, JSON),
    "tags": Target("files of tags", "tags.json", readers.tags, JSON),
}


def corpus(name: str) -> dict[str, bytes]:
    """The files kept for a target, by name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}
