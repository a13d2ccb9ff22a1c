"""``vpd data make`` and ``vpd data check``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from vpd.cli.answer import Answer, plain


def make(
    name: Literal["tabletop"],
    *,
    root: Path,
    splits: list[str] = ["train", "val", "test"],  # noqa: B006 - never changed
    workers: int | None = None,
) -> Answer:
    """Renders Tabletop and writes it in the REFER layout, which the readers of RefCOCO read.

    Can be interrupted and repeated; what is finished stays.

    Args:
        name: the data set
        root: folder to write to
        splits: of train, train-10k, val and test
        workers: rendering processes; one per core by default
    """
    from vpd.data.tabletop.layout import make_tabletop

    report = make_tabletop(root, splits, workers=workers)
    return Answer(plain(asdict(report)), report.table(), code=0 if report.ok else 1)


def check(
    name: Literal["tabletop", "refcoco", "refcoco+", "refcocog", "refclef"],
    *,
    root: Path,
    split_by: str | None = None,
) -> Answer:
    """Counts the refs and sentences of a data set on disk and names what is missing.

    The exit code is 1 if anything is.

    Args:
        name: the data set
        root: folder that holds it in the REFER layout
        split_by: maker of the splits (unc, google, umd); the data set's usual one by default
    """
    from vpd.data.check import check_refer

    report = check_refer(root, name, split_by)
    data = asdict(report) | {"ok": report.ok, "recognised": report.recognised}
    return Answer(plain(data), report.table(), code=0 if report.ok else 1)
