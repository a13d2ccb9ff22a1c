"""``vpd info cost``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from vpd.cli.answer import Answer, plain
from vpd.cost import summed
from vpd.cost_time import Device, devices_of, seconds
from vpd.tables import markdown_table
from vpd.train.cost import Plan, TrainingCost, training_cost
from vpd.train.dense.config import DepthTrainConfig, SemanticTrainConfig
from vpd.train.panoptic.config import PanopticTrainConfig
from vpd.train.refer.config import ReferTrainConfig
from vpd.train.tasks import recipe_of

_DEVICES = ["T4", "A100-40", "A100-80", "H100"]
_PROCESSES = [1, 8]


def cost(
    config: ReferTrainConfig,
    *,
    devices: list[str] = _DEVICES,
    processes: list[int] = _PROCESSES,
) -> Answer:
    """Says what `vpd train` would cost with the same options: FLOP, bytes and memory, and by a
    simple model the time on devices by their data sheets: vpd info cost --config
    configs/refer/refcoco.yaml --weights sd.safetensors.

    Nothing is computed and neither weights nor data are read. Reading data and evaluations come
    on top. vpd info cost semantic, panoptic and depth are the same for other tasks. How it
    counts, and how far to trust it: docs/scaling.md.

    Args:
        devices: T4, V100, A100-40, A100-80, H100, H200; here is this machine, measured in a second
        processes: how many of them work together; those that do not divide the batch are left out
    """
    from vpd.train.refer.footprint import refer_step

    on = devices_of(devices)
    return _answer(training_cost(config, refer_step, _objects(config)), on, processes)


def _of(task: str, config_type: type[Any], example: str) -> Callable[..., Answer]:
    """The command of a task with a value for every pixel."""

    def command(
        config: Any, *, devices: list[str] = _DEVICES, processes: list[int] = _PROCESSES
    ) -> Answer:
        return _dense(config, devices, processes)

    command.__annotations__["config"] = config_type
    arguments = (cost.__doc__ or "").partition("Args:")[2]
    command.__doc__ = f"""Says what `vpd train {task}` would cost with the same options, as vpd info
    cost does: vpd info cost {task} --config {example} --weights sd.safetensors.

    Args:{arguments}"""
    return command


cost_semantic = _of("semantic", SemanticTrainConfig, "configs/semantic/ade20k.yaml")
cost_panoptic = _of("panoptic", PanopticTrainConfig, "configs/panoptic/coco.yaml")
cost_depth = _of("depth", DepthTrainConfig, "configs/depth/nyuv2.yaml")


def _dense(config: Any, devices: list[str], processes: list[int]) -> Answer:
    from vpd.data.dense import dense_count, dense_names
    from vpd.train.dense.footprint import dense_step

    recipe = recipe_of(config)
    data, on = config.data, devices_of(devices)
    names = dense_names(recipe.task, data.name, names=data.names, scene=data.scene)
    training = recipe.blank or recipe.training
    rows = dense_count(data.name, data.split)
    found = training_cost(
        config,
        lambda own: dense_step(own, recipe.empty, training, names),
        min(rows, data.limit or rows) if rows is not None else None,
    )
    return _answer(found, on, processes)


def _objects(config: ReferTrainConfig) -> int | None:
    """Objects of a data set as published: an epoch visits each once."""
    from vpd.data.check import PUBLISHED

    data = config.data
    split_by = "vpd" if data.name == "tabletop" else data.split_by
    found = PUBLISHED.get((data.name, split_by or ""), {}).get(data.split)
    if found is None:
        return None
    if data.limit is not None:
        from vpd.data.tabletop import SPLITS

        return round(found.refs * min(1.0, data.limit / SPLITS[data.split].count))
    if data.subset is None:
        return found.refs
    each = found.sentences / found.refs if data.subset_unit == "sentence" else 1.0
    return min(found.refs, round(data.subset / each))


def _answer(found: TrainingCost, devices: Sequence[Device], processes: Sequence[int]) -> Answer:
    counts = [count for count in processes if found.divides(count)] or processes
    plans = [found.plan(device, count) for device in devices for count in counts]
    rows = found.micro_batch or found.batch
    parts, prediction = summed(found.operations(rows)), summed(found.prediction.operations)
    before = summed((own, 1.0) for own in found.once)
    step_flop = sum(flop for flop, _ in parts.values()) * found.batch / rows
    one_flop = sum(flop for flop, _ in prediction.values())
    lines = [
        f"one pass of {rows} rows, {'bf16' if found.autocast else 'float32'}:",
        _parts_table(parts),
        *([f"once for a row, kept:\n{_parts_table(before)}"] if before else []),
        f"a step: {found.batch} rows, {step_flop / 1e12:.4g} TFLOP; {found.steps:,} steps; "
        f"{found.trained:,} parameters train",
        f"one prediction: {one_flop / 1e12:.4g} TFLOP, {found.prediction.memory / 1e9:.3g} GB, "
        + ", ".join(f"{_predicts(found, one):.3g} s on {one.name}" for one in devices),
        "",
        _plans_table(plans),
    ]
    data = {
        "rows_of_a_pass": rows,
        "parts": _parts_data(parts),
        "once": _parts_data(before),
        "prediction": {
            "flop": one_flop,
            "memory": found.prediction.memory,
            "seconds": {device.name: _predicts(found, device) for device in devices},
        },
        "step_flop": step_flop,
        "steps": found.steps,
        "epoch_rows": found.epoch_rows,
        "trained": found.trained,
        "plans": [asdict(plan) for plan in plans],
    }
    return Answer(plain(data), "\n".join(lines).rstrip())


def _predicts(found: TrainingCost, device: Device) -> float:
    return seconds(found.prediction.operations, device, found.autocast)


def _parts_data(parts: dict[Any, tuple[float, float]]) -> list[dict[str, Any]]:
    return [
        {"part": part, "phase": phase, "flop": flop, "bytes": moved}
        for (part, phase), (flop, moved) in parts.items()
    ]


def _parts_table(parts: dict[Any, tuple[float, float]]) -> str:
    head = ("part", "phase", "TFLOP", "GB moved", "FLOP/byte")
    rows = [
        (part or "all", phase, f"{flop / 1e12:.3g}", f"{moved / 1e9:.3g}", f"{flop / moved:.3g}")
        for (part, phase), (flop, moved) in parts.items()
        if flop or moved > 5e6  # else what lies between networks: noise, numbers of rows
    ]
    return markdown_table([head, *rows], left=2)


def _plans_table(plans: Sequence[Plan]) -> str:
    head = ("device", "rows x passes", "GB", "s a step", "h an epoch", "h in all", "GB sent a step")
    lines: list[Sequence[str]] = [head]
    for plan in plans:
        name = plan.device if plan.processes == 1 else f"{plan.processes} x {plan.device}"
        if plan.rows is None:
            lines.append((name, "does not fit", f"{plan.memory / 1e9:.3g}", "", "", "", ""))
            continue
        epoch = "-" if plan.epoch is None else f"{plan.epoch / 3600:.3g}"
        counts = (f"{plan.rows} x {plan.passes}", f"{plan.memory / 1e9:.3g}")
        hours = (epoch, f"{plan.total / 3600:.3g}")
        lines.append((name, *counts, f"{plan.step:.3g}", *hours, f"{plan.sent / 1e9:.3g}"))
    return markdown_table(lines, left=2)
