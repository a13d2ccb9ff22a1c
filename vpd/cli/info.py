"""``vpd info`` and ``vpd info cmake``."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from vpd.cli.answer import Answer


def info() -> Answer:
    """Versions, devices, what runs natively, and the models that come with the package."""
    facts: dict[str, Any] = {
        "versions": _versions(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
        },
        "devices": _devices(),
        "native": _native(),
        "models": _models(),
    }
    lines = []
    for title, section in facts.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<14} {value}" for name, value in section.items()] or ["  none"]
    return Answer(facts, "\n".join(lines))


def cmake() -> Answer:
    """The prefix under which C++ projects find the core: cmake -DCMAKE_PREFIX_PATH="$(vpd info
    cmake)" makes find_package(vpd) work."""
    import vpd
    from vpd._load import core

    folders = dict.fromkeys([Path(core.__file__).parent, *map(Path, vpd.__path__)])
    for folder in folders:
        if (folder / "cmake" / "vpd-config.cmake").is_file():
            prefix = str(folder.parent)
            return Answer({"prefix": prefix}, prefix)
    raise FileNotFoundError(
        f"expected CMake's files of vpd in {' or '.join(map(str, folders))}, found none: they come "
        "with `pip install .`"
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    import vpd

    found = {"vpd": vpd.__version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "opencv-python-headless", "safetensors", "lightning"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _devices() -> dict[str, str]:
    import torch

    found = {"cpu": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    return found


def _native() -> dict[str, Any]:
    """What the core was built with, and the devices that its operators have kernels for."""
    import torch

    from vpd._load import core

    found: dict[str, Any] = {"core": os.path.basename(core.__file__)}
    if hasattr(core, "build_info"):
        found |= core.build_info()
    names = sorted(
        {
            name.split("::")[1].split(".")[0]
            for name in torch._C._dispatch_get_all_op_names()
            if name.startswith("vpd::")
        }
    )
    for key in ("CPU", "CUDA"):
        have = [
            n for n in names if torch._C._dispatch_has_kernel_for_dispatch_key(f"vpd::{n}", key)
        ]
        found[f"ops on {key}"] = ", ".join(have) or "none"
    return found


def _models() -> dict[str, str]:
    import json

    from vpd.tasks import store

    found = {}
    for name in store.shipped():
        folder = store.find(name)
        task = json.loads((folder / "config.json").read_text())["task"]
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        found[name] = f"{task}, {size / 1e6:.1f} MB"
    return found
