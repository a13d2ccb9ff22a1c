"""Names of the classes that metrics score one by one."""

from __future__ import annotations

from collections.abc import Sequence


def one_each(owner: str, names: Sequence[str] | None, num_classes: int) -> tuple[str, ...] | None:
    """The names, if there are any; raises ValueError unless each class has its own."""
    if names is None:
        return None
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise ValueError(
            f"{owner}: expected {num_classes} different names, got {len(names)}, "
            f"{len(set(names))} of them different"
        )
    return tuple(names)
