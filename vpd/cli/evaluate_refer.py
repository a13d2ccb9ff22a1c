"""``vpd evaluate`` of referring segmenters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vpd.cli.answer import Answer, plain

if TYPE_CHECKING:
    from vpd.tasks.evaluate import Evaluation
    from vpd.tasks.refer import ReferConfig, ReferSegmenter
    from vpd.tasks.shares import Group

__all__ = ["Whole", "by_timestep", "ready"]


class Whole(NamedTuple):
    """What scoring a referring segmenter found, and with what."""

    found: list[Evaluation]
    network: ReferSegmenter
    samples: Any
    peak_bytes: int | None


def ready(
    model: dict[str, Any],
    where: dict[str, Any],
    protocol: str | None,
    steps: list[int],
    conditions: dict[str, Any],
    options: dict[str, Any],
) -> Callable[[Group], Whole]:
    """A referring segmenter and pictures, ready to be scored.

    Args:
        model: Options of :func:`vpd.cli.models.refer_model`.
        where: Options of :func:`vpd.cli.splits.samples_of`.
        protocol, steps: Noise of timesteps instead of the model's own, if there is a protocol.
        conditions: Options of :func:`vpd.tasks.evaluate.under`.
        options: Of :func:`vpd.tasks.timesteps.evaluate_timesteps`.
    """
    from vpd.cli.models import refer_model
    from vpd.cli.splits import samples_of
    from vpd.memory import watch_peak
    from vpd.tasks.evaluate import under
    from vpd.tasks.maps import at_timestep
    from vpd.tasks.timesteps import evaluate_timesteps
    from vpd.train.distributed import first_in_turn

    with first_in_turn():  # which renders what is not there yet
        samples = samples_of(**where)
    network = refer_model(**model)
    noise = None
    if protocol is not None:
        noise = at_timestep(protocol, steps[0], network.config.noise)
    network = under(network, noise, **conditions)
    noise = network.config.noise
    noises = [noise] if protocol is None else [replace(noise, noise_t=step) for step in steps]

    def score(group: Group) -> Whole:
        peak = watch_peak(network.device)
        found = evaluate_timesteps(network, samples, noises, group=group, **options)
        return Whole(found, network, samples, peak())

    return score


def by_timestep(
    name: str | list[str],
    found: list[Evaluation],
    config: ReferConfig,
    peak_bytes: int | None,
    out: Path | None,
) -> Answer:
    """Scores at several timesteps, and files of them."""
    from vpd.tasks.timestep_rows import markdown, timestep_rows, write_rows

    rows = timestep_rows(found, config, peak_bytes)
    first = rows[0]
    seconds = sum(row["seconds"] for row in rows)
    lines = [
        f"{name} on {first['data']} {first['split']}: {first['n']} sentences about "
        f"{first['images']} images, protocol {first['protocol']}",
        markdown(rows).rstrip("\n"),
        f"{seconds:.1f} seconds for all timesteps together",
    ]
    files = [] if out is None else write_rows(rows, out)
    lines += [f"wrote {path}" for path in files]
    data = {
        "model": name,
        "rows": rows,
        "results": [one.to_dict() for one in found],
        "files": files,
    }
    return Answer(plain(data), "\n".join(lines))
