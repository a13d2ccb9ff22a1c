"""``vpd serve``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpd.cli.answer import Answer
from vpd.cli.models import DType

if TYPE_CHECKING:
    from vpd.serve.answers import Served


def serve(
    *,
    model: list[str] | None = None,
    weights: list[Path] | None = None,
    token_length: int | None = None,
    port: int = 7860,
    max_mb: int = 20,
    max_megapixels: int = 25,
    max_waiting: int = 16,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Serves a page on this machine on which models are tried: a picture, and what the model is
    asked, in a browser.

    The page is at http://127.0.0.1:7860 until Ctrl-C; other machines do not reach it. A tab for
    each model asks what it takes: a sentence, a vocabulary, an instruction, a timestep. One request
    is answered at a time. Nothing is sent anywhere, and what was uploaded is deleted after ten
    minutes and at the end.

    Args:
        model: shipped models, or folders that vpd train wrote; all shipped ones by default
        weights: instead of a model: Stable Diffusion v1 and an official checkpoint, as vpd predict
            takes them
        token_length: tokens of a sentence, with weights
        port: of the page; 0: one that is free
        max_mb: largest file of a picture, in megabytes
        max_megapixels: largest picture
        max_waiting: requests that wait while one is answered; more are refused
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.serve.limits import Limits
    from vpd.serve.page import check_installed, running

    limits = Limits(max_mb=max_mb, max_megapixels=max_megapixels, max_waiting=max_waiting)
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be in 0 to 65535, got {port}")
    check_installed()  # before models are read
    served = models(model, weights, token_length, device, dtype)
    with _ended_as_by_ctrl_c(), running(served, limits, port) as address:
        print(f"vpd: {address}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
    data = {"address": address, "models": [one.name for one in served]}
    return Answer(data, f"served {', '.join(data['models'])}")


def models(
    names: Sequence[str] | None,
    weights: Sequence[Path] | None,
    token_length: int | None,
    device: str,
    dtype: DType,
) -> list[Served]:
    """The models that options name, loaded.

    Raises:
        ValueError: Models and weights, or a model that answers nothing.
        OSError: One that is not there.
    """
    from vpd.cli.models import dense_model, editor_model, refer_model
    from vpd.cli.open_vocabulary import open_model
    from vpd.serve.answers import TASKS, Served
    from vpd.tasks.sources import task_of_weights
    from vpd.tasks.store import shipped, task_of

    if weights and names:
        raise ValueError("models and weights were both given: choose one")
    if weights:
        found = [("weights", task_of_weights(weights))]
    elif names:
        found = [(name, task_of(name)) for name in dict.fromkeys(names)]
    else:
        found = [(name, task_of(name)) for name in shipped() if task_of(name) in TASKS]
        found.sort(key=lambda one: list(TASKS).index(one[1]))
    served = []
    for name, task in found:
        loaded: Any = None
        if task == "refer":
            loaded = refer_model(name, weights, device, dtype, token_length)
        elif task == "open-panoptic":
            loaded = open_model(name, weights, device, dtype)
        elif task == "edit":
            loaded = editor_model(name, device, dtype)
        elif task in ("semantic", "panoptic", "depth"):
            loaded = dense_model(task, name, device, dtype)  # type: ignore[arg-type]
        served.append(Served(Path(name).name or name, task, loaded))
    return served


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """A request to end (SIGTERM) too lets what lies in temporary folders be deleted."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
