"""The JSON files of COCO: tables of images, annotations and categories."""

from pathlib import Path
from typing import Any

from vpd.data.files import parse_json

TABLES = ("images", "annotations", "categories")


def read_tables(path: Path, kind: str) -> dict[str, Any]:
    """The tables of a file.

    Args:
        kind: what the file should be, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON, or lacks a table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the annotations here, found no file")
    tables = parse_json(path.read_bytes(), path)
    for field in TABLES:
        if not isinstance(tables, dict) or not isinstance(tables.get(field), list):
            raise ValueError(f"{path}: expected {kind} with a list {field!r}")
    return tables
