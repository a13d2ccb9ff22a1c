"""Ctrl-C in a training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[None]:
    """An interrupt within leaves as KeyboardInterrupt, as from any other code.

    Lightning turns it into SystemExit(1) and leaves the process deaf to further ones; a caller,
    such as a grid of trainings, then cannot tell an interrupt from a failure.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)
