"""Runs a function in several processes that form a group, as torchrun would start them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

TIMEOUT_SECONDS = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(
    function: Callable[..., Any], folder: Path, *args: Any, count: int = 2
) -> list[mp.Process]:
    """Starts ``function(*args)`` in ``count`` processes; their results go to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=_main, args=(function, rank, count, port, folder, args))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def together(function: Callable[..., Any], folder: Path, *args: Any, count: int = 2) -> list[Any]:
    """What ``function(*args)``, a function of a test module, returns in each of ``count`` processes
    (tensors and plain values)."""
    processes = start(function, folder, *args, count=count)
    for process in processes:
        process.join(TIMEOUT_SECONDS)
    assert [process.exitcode for process in processes] == [0] * count
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _main(
    function: Callable[..., Any], rank: int, count: int, port: int, folder: Path, args: Any
) -> None:
    from vpd.train.distributed import join

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    with join():
        result = function(*args)
    torch.save(result, folder / f"{rank}.pt")
