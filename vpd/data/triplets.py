"""Triplets of texts for editing: a caption, an instruction, and the caption of the edited picture.

Brooks et al. 2023 (InstructPix2Pix), section 3.1.1: few hundred triplets written by people, from
which a language model learns to write hundreds of thousands. Nothing here uses a network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vpd.data.files import atomic_write, json_lines, parse_json

__all__ = [
    "BETWEEN",
    "PROMPT_END",
    "STOP",
    "Triplet",
    "TripletGenerator",
    "accepted",
    "read_triplets",
    "write_finetuning",
    "write_triplets",
]

PROMPT_END = "\n##\n"
"""Between a caption and what a language model writes about it."""
BETWEEN = "\n%%\n"
"""Between instruction and edited caption."""
STOP = "\nEND"
"""Behind the edited caption."""


@dataclass(frozen=True)
class Triplet:
    """An edit in words.

    Attributes:
        input: caption of the picture before.
        edit: the instruction.
        output: caption of the picture after.
        url: where the picture of the caption is from, "" if unknown.
    """

    input: str
    edit: str
    output: str
    url: str = ""

    def record(self, form: Literal["human", "generated"] = "generated") -> dict[str, str]:
        """As JSON files have it: `input, edit, output`, or `caption, edit, output, url`."""
        if form == "human":
            return {"input": self.input, "edit": self.edit, "output": self.output}
        return {"caption": self.input, "edit": self.edit, "output": self.output, "url": self.url}

    @staticmethod
    def from_record(record: object, where: str) -> Triplet:
        """From either form; other fields do not matter.

        Args:
            where: file and line, for messages.

        Raises:
            ValueError: A text that is not there or is none.
        """
        fields = record if isinstance(record, dict) else {}
        caption, edit = fields.get("input", fields.get("caption")), fields.get("edit")
        output, url = fields.get("output"), fields.get("url") or ""
        if not all(isinstance(text, str) for text in (caption, edit, output, url)):
            raise ValueError(
                f"{where}: expected texts input (or caption), edit and output, "
                f"got {json.dumps(record)[:200]}"
            )
        return Triplet(str(caption), str(edit), str(output), str(url))


class TripletGenerator(Protocol):
    """What writes triplets."""

    def triplets(self, done: Collection[str] = ()) -> Iterator[Triplet]:
        """Those that are accepted, in an order of its own, none twice.

        Args:
            done: Captions and URLs that are left out.
        """
        ...


def accepted(triplet: Triplet) -> bool:
    """Whether the edited caption says something else than the caption: they differ beyond case,
    spaces and `.!?` around them."""
    return _bare(triplet.input) != _bare(triplet.output)


def _bare(caption: str) -> str:
    return caption.strip().strip(".!?").lower()


def read_triplets(path: str | os.PathLike[str]) -> list[Triplet]:
    """The triplets of a JSON Lines file, all of them.

    Raises:
        FileNotFoundError: There is no such file. ValueError: A line is no triplet.
    """
    found = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        if line.strip():
            found.append(_parse(line, f"{path}, line {number}"))
    return found


def write_triplets(
    path: str | os.PathLike[str], generator: TripletGenerator, limit: int | None = None
) -> int:
    """Adds a generator's triplets to a file, one JSON object a line, as they come.

    The work can be killed and repeated: what the file holds is not written again, and half a line
    at its end is cut off. Each part of a partition needs a file of its own.

    Args:
        limit: Triplets that the file holds at most.

    Returns:
        How many it holds.

    Raises:
        ValueError: The file holds something else.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        _cut_half_line(target)
    before = read_triplets(target) if target.exists() else []
    done = {text for t in before for text in (t.input, t.url) if text}
    count = len(before)
    with target.open("ab") as file:
        if limit is not None and count >= limit:
            return count
        for triplet in generator.triplets(done):
            file.write(json_lines([triplet.record()]).encode())
            file.flush()
            count += 1
            if count == limit:
                break
    return count


def write_finetuning(path: str | os.PathLike[str], triplets: Sequence[Triplet]) -> None:
    """Writes the file that a language model is fine-tuned on: a prompt and a completion a line."""
    rows = [
        {"prompt": t.input + PROMPT_END, "completion": t.edit + BETWEEN + t.output + STOP}
        for t in triplets
    ]
    with atomic_write(path) as file:
        file.write(json_lines(rows).encode())


def _parse(line: bytes, where: str) -> Triplet:
    return Triplet.from_record(parse_json(line, where), where)


def _cut_half_line(path: Path) -> None:
    """A killed writer leaves the beginning of a line behind the last newline."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        try:
            _parse(data[whole:], str(path))
        except ValueError:
            os.truncate(path, whole)
        else:  # a file of somebody else's, complete but for the newline
            with path.open("ab") as file:
                file.write(b"\n")
