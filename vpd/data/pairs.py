"""Pictures on disk and what belongs to each, found by file name."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Key = Callable[[str], str | None]


@dataclass(frozen=True)
class Pairs:
    """Pictures with their targets (labels, depths), by name below two folders.

    Attributes:
        rows: (id, picture, target), ordered by id.
        missing: pictures whose target is not there; of a list file, whatever is not there.
        unused: targets without a picture.
    """

    image_root: Path
    target_root: Path
    rows: tuple[tuple[str, str, str], ...]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def whole(self, target: str) -> "Pairs":
        """Itself.

        Raises:
            FileNotFoundError: if a picture lacks its target, or there are no pictures.
        """
        if self.missing:
            more = f" (and {len(self.missing) - 1} more)" if len(self.missing) > 1 else ""
            raise FileNotFoundError(
                f"{self.target_root}: expected a {target} for every picture, found none for "
                f"{self.missing[0]}{more}"
            )
        if not self.rows:
            raise FileNotFoundError(f"{self.image_root}: expected pictures here, found none")
        return self


def ending(*endings: str) -> Key:
    """A key function: the name without one of these endings; files with another have no key."""

    def key(name: str) -> str | None:
        return next((name[: -len(e)] for e in endings if name.lower().endswith(e.lower())), None)

    return key


def match(image_root: Path, target_root: Path, image_key: Key, target_key: Key) -> Pairs:
    """Pairs files of two folders that have the same key; files without a key do not count.

    Args:
        image_key, target_key: from a path relative to the folder, with forward slashes.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if two files of a folder have the same key.
    """
    images, targets = _by_key(image_root, image_key), _by_key(target_root, target_key)
    return Pairs(
        image_root,
        target_root,
        tuple((key, images[key], targets[key]) for key in sorted(images) if key in targets),
        missing=tuple(images[key] for key in sorted(images) if key not in targets),
        unused=tuple(targets[key] for key in sorted(targets) if key not in images),
    )


def files_below(folder: Path) -> list[str]:
    """All files below a folder, relative and sorted, with forward slashes; no hidden ones.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of pictures here, found none")
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(place).relative_to(folder).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        found += [prefix + name for name in files if not name.startswith(".")]
    return sorted(found)


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def below(root: str | os.PathLike[str], name: str) -> Path:
    """`root/name` if there is such a folder, else `root`: people give either."""
    inner = Path(root) / name
    return inner if inner.is_dir() else Path(root)


def _by_key(folder: Path, key_of: Key) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in files_below(folder):
        key = key_of(name)
        if key is None:
            continue
        if key in found:
            first, second = sorted((found[key], name))
            raise ValueError(f"{folder}: expected one file for {key!r}, got {first} and {second}")
        found[key] = name
    return found
