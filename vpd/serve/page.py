"""The page, by Gradio."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vpd.serve.answers import Field, Served
from vpd.serve.guard import Guard
from vpd.serve.limits import Limits, read_upload

__all__ = ["check_installed", "running"]

HOST = "127.0.0.1"
_TITLE = "vpd"
_SWEEP, _AGE = 60, 600  # seconds: how often old pictures are deleted, and how old they get
_ABOUT = (
    "Drop a picture, say what is asked, press **Answer**. Everything stays on this machine; "
    "pictures are deleted after ten minutes and when the server ends."
)


def check_installed() -> None:
    """Raises ImportError without Gradio."""
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("vpd serve needs Gradio: pip install 'vpd[serve]'")


def _page(served: Sequence[Served], limits: Limits) -> Any:
    """A tab for each model. One request is answered at a time."""
    gr: Any = importlib.import_module("gradio")
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(_SWEEP, _AGE)) as blocks:
        gr.Markdown(f"# {_TITLE}\n{_ABOUT}")
        for one in served:
            with gr.Tab(one.name):
                _tab(gr, one, limits)
    blocks.queue(max_size=limits.max_waiting, default_concurrency_limit=1, api_open=False)
    return blocks


def _tab(gr: Any, one: Served, limits: Limits) -> None:
    with gr.Row():
        with gr.Column():
            picture = gr.Image(
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                label="picture",
                buttons=["fullscreen"],
            )
            fields = [_component(gr, field, limits) for field in one.fields]
            button = gr.Button("Answer", variant="primary")
        with gr.Column():
            # None of the buttons that send pictures elsewhere.
            drawn = {"format": "png", "interactive": False, "buttons": ["download", "fullscreen"]}
            shown = gr.Image(type="numpy", label="answer", **drawn)
            said = gr.Textbox(label="in words", interactive=False)
            more = gr.Gallery(label="maps", columns=4, **drawn)
    asked: dict[str, Any] = {
        "fn": _answering(gr, one, limits),
        "inputs": [picture, *fields],
        "outputs": [shown, more, said],
        "concurrency_id": "model",  # of all tabs together
        "concurrency_limit": 1,
        "api_visibility": "private",
    }
    button.click(**asked)
    for field, component in zip(one.fields, fields, strict=True):
        if field.kind == "text":
            component.submit(**asked)


def _component(gr: Any, field: Field, limits: Limits) -> Any:
    if field.kind == "text":
        return gr.Textbox(label=field.label, value=field.value, max_length=limits.max_text)
    if field.kind == "choice":
        return gr.Dropdown(label=field.label, value=field.value, choices=list(field.choices))
    if field.kind == "number":
        return gr.Number(
            label=field.label, value=field.value, minimum=field.low, maximum=field.high, precision=0
        )
    return gr.Slider(
        label=field.label, value=field.value, minimum=field.low, maximum=field.high, step=field.step
    )


def _answering(gr: Any, one: Served, limits: Limits) -> Callable[..., Any]:
    names = [field.name for field in one.fields]

    def answer(path: str | None, *values: Any) -> tuple[Any, list[Any], str]:
        try:
            asked = dict(zip(names, values, strict=True))
            if "text" in asked:
                asked["text"] = limits.check_text(asked["text"])
            found = one(read_upload(path, limits), **asked)
        except (ValueError, TypeError, OSError) as error:
            raise gr.Error(" ".join(str(error).split()), print_exception=False) from None
        return found.picture, list(found.more), found.said

    return answer


@contextmanager
def running(served: Sequence[Served], limits: Limits, port: int) -> Iterator[str]:
    """A server of the page, until the end of the block; what visitors left is deleted then.

    Args:
        port: Of 127.0.0.1; 0: one that is free.

    Returns:
        The page's address.

    Raises:
        ImportError: Gradio is not installed.
        OSError: The port is in use.
    """
    check_installed()
    with tempfile.TemporaryDirectory(prefix="vpd-serve-") as name, _environment(name):
        blocks = _page(served, limits)
        guard = _guarded(limits, Path(name))
        try:
            _, address, _ = blocks.launch(
                server_name=HOST,
                server_port=port or _free_port(),
                app_kwargs={"middleware": [guard]},
                allowed_paths=[],
                max_file_size=limits.max_bytes,
                share=False,
                inbrowser=False,
                quiet=True,
                show_error=True,
                prevent_thread_lock=True,
                enable_monitoring=False,
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
            )
        except OSError:
            raise OSError(f"port {port} of {HOST} is in use: choose another by --port") from None
        try:
            yield address
        finally:
            blocks.close(verbose=False)


def _guarded(limits: Limits, folder: Path) -> Any:
    middleware: Any = importlib.import_module("starlette.middleware")
    return middleware.Middleware(Guard, limits=limits, folder=folder)


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Gradio reads its folders from the environment, some when it is imported and some whenever it
    needs them; and whether to report to its makers."""
    names = {
        "GRADIO_TEMP_DIR": folder,
        "GRADIO_EXAMPLES_CACHE": folder,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "GRADIO_MCP_SERVER": "False",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
