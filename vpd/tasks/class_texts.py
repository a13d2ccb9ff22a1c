"""Texts that stand for classes: one embedding for each class, from one or many sentences about
it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.data.files import atomic_write
from vpd.data.naming import checked_names
from vpd.models.clip_text import CLIPTextEncoder
from vpd.tokens import tokenize
from vpd.weights import save_weights

__all__ = [
    "TEMPLATES",
    "ClassTexts",
    "embed_classes",
    "embed_sentences",
    "read_class_texts",
    "synonyms",
    "templates",
]

TEMPLATES = ("clip80", "single", "bare")
"""Named sets of sentences: the 80 of CLIP's ImageNet evaluation (Radford et al. 2021), "a photo of
a {}." alone, and the name by itself."""
_SEPARATOR = ";"
_TENSOR = "class_embeddings"


@dataclass(frozen=True)
class ClassTexts:
    """Embeddings of classes, and how they were made."""

    names: tuple[str, ...]
    embeddings: Tensor
    """float32 [K, C]."""
    templates: tuple[str, ...] = ()
    """Sentences with ``{}`` in place of a name; () if unknown."""
    encoder: str = ""
    """Hash of the text encoder's weights; empty if unknown."""

    def save(self, path: str | Path) -> Path:
        """Writes ``path`` (safetensors, the tensor ``class_embeddings``) and beside it the same
        name with ``.json``: names, templates, encoder."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"{path}: expected a name ending in .safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights({_TENSOR: self.embeddings.float().cpu().contiguous()}, path)
        said = {
            "names": list(self.names),
            "templates": list(self.templates),
            "encoder": self.encoder,
            "shape": list(self.embeddings.shape),
        }
        with atomic_write(path.with_suffix(".json")) as file:
            file.write((json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
        return path


def templates(which: str | Sequence[str]) -> tuple[str, ...]:
    """Sentences of a named set (:data:`TEMPLATES`), or those given.

    Raises:
        ValueError: An unknown set, no sentence, or one without ``{}``.
    """
    if isinstance(which, str):
        if which == "clip80":
            folder = Path(__file__).parent.parent / "data" / "names"
            return tuple((folder / "clip80.templates").read_text().splitlines())
        known = {"single": ("a photo of a {}.",), "bare": ("{}",)}
        if which not in known:
            raise ValueError(f"templates must be one of {', '.join(TEMPLATES)}, got {which!r}")
        return known[which]
    found = tuple(which)
    if not found or any("{}" not in one for one in found):
        raise ValueError(f"templates must be sentences with {{}} for the name, got {list(found)}")
    return found


def synonyms(name: str) -> list[str]:
    """The names in ``"sofa; couch"``.

    Raises:
        ValueError: There is none.
    """
    found = [part.strip() for part in name.split(_SEPARATOR) if part.strip()]
    if not found:
        raise ValueError(f"expected names of classes, got {name!r}")
    return found


@torch.no_grad()
def embed_sentences(
    text: CLIPTextEncoder, sentences: Sequence[str], *, joint: bool = False, unit: bool = True
) -> Tensor:
    """The encoder's pooled state of each sentence, or its place in the space that pictures share.

    Args:
        text: A text encoder; for ``joint`` one with a projection.
        sentences: N of them.
        joint: Which of the two.
        unit: Scale places to length 1.

    Returns:
        float32 [N, C], on the CPU.
    """
    device = next(text.parameters()).device
    ids = tokenize(list(sentences), length=text.config.max_position_embeddings).ids.to(device)
    out = text(ids)
    if not joint:
        return out.pooled.float().cpu()
    if out.projected is None:
        raise ValueError("this text encoder has no projection into a space that pictures share")
    rows = out.projected.float()
    return (F.normalize(rows, dim=-1) if unit else rows).cpu()


def embed_classes(
    text: CLIPTextEncoder,
    names: Sequence[str],
    templates_: str | Sequence[str] = "clip80",
    *,
    joint: bool = False,
    batch: int = 80,
) -> Tensor:
    """One embedding for each class: the encoder's pooled state (that of the end of the sentence,
    after the last norm), averaged over templates without normalising, as VPD's were made.

    Args:
        text: The text encoder that the U-Net was trained with.
        names: Of the classes. Synonyms, ``"sofa; couch"``, are averaged too.
        templates_: As :func:`templates` takes them.
        joint: The classes' places in the space of texts and pictures instead: the mean of the
            sentences' unit vectors, itself of unit length (the ensembles of Radford et al. 2021,
            section 3.1.4).
        batch: Sentences at a time.

    Returns:
        float32 [len(names), C].
    """
    said = templates(templates_)
    sentences, owners = [], []
    for index, name in enumerate(names):
        words = synonyms(name)
        sentences += [one.replace("{}", word) for word in words for one in said]
        owners += [index] * (len(said) * len(words))
    if not sentences:
        raise ValueError("expected at least one name of a class, got none")
    whose = torch.tensor(owners)
    rows = torch.zeros(0)
    for start in range(0, len(sentences), batch):
        found = embed_sentences(text, sentences[start : start + batch], joint=joint)
        if not start:
            rows = found.new_zeros(len(names), found.shape[1])
        rows.index_add_(0, whose[start : start + batch], found)
    rows /= torch.bincount(whose)[:, None]
    return F.normalize(rows, dim=-1) if joint else rows


def read_class_texts(path: str | Path, names: Sequence[str] | None = None) -> ClassTexts:
    """Reads embeddings: a file of :meth:`ClassTexts.save`, or a tensor [K, C] in a PyTorch file, as
    VPD's released ones are. (Nothing but tensors and plain values is unpickled.)

    Args:
        path: The file.
        names: Of the classes, where no file beside it names them.

    Raises:
        OSError: It cannot be opened. ValueError: It holds something else, or not one row for each
            name.
    """
    path = Path(path)
    said = path.with_suffix(".json")
    found = _tensor(path)
    about = ClassTexts((), found)
    if said.is_file():
        try:
            read = json.loads(said.read_text())
            about = ClassTexts(
                tuple(read["names"]), found, tuple(read["templates"]), str(read["encoder"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{said}: expected names, templates and encoder in JSON, got {error}"
            ) from error
    if names is not None:
        about = ClassTexts(tuple(names), found, about.templates, about.encoder)
    named = checked_names(str(path), about.names or [f"class {i}" for i in range(len(found))])
    if len(named) != len(found):
        raise ValueError(f"{path}: expected {len(named)} rows, one for each name, got {len(found)}")
    return ClassTexts(named, found, about.templates, about.encoder)


def _tensor(path: Path) -> Tensor:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: no safetensors file ({error})") from error
        found = tensors.get(_TENSOR)
    else:
        import pickle

        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ValueError(f"{path}: expected a PyTorch file of one tensor ({error})") from error
        if isinstance(found, dict) and len(found) == 1:
            (found,) = found.values()
    if not isinstance(found, Tensor) or found.dim() != 2 or not found.is_floating_point():
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found)
        raise ValueError(f"{path}: expected embeddings, floating point [K, C], got {what}")
    if not torch.isfinite(found).all():
        raise ValueError(f"{path}: expected finite embeddings, got NaN or infinite ones")
    return found.float()
