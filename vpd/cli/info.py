"""``vpd info`` and ``vpd info cmake``."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vpd.cli.answer import Answer

# Settings of the environment that change what runs, where and how fast.
_SETTINGS = re.compile(
    r"(VPD|OMP|MKL|KMP|GOMP|OPENBLAS|PYTORCH|TORCH|ATEN|CUDA|NCCL)_.*|LD_LIBRARY_PATH"
    r"|LD_PRELOAD|PYTHONPATH|WORLD_SIZE|RANK|LOCAL_RANK"
)


def info() -> Answer:
    """All that a report of a bug needs: versions, machine, devices, what the core was built for and
    runs natively, folders, settings of the environment, and the models that come with the package.
    """
    sections = (_versions, _machine, _devices, _native, _folders, _settings, _models)
    facts = {section.__name__[1:]: _found(section) for section in sections}
    lines = []
    for title, section in facts.items():
        width = max(map(len, section), default=0)
        lines.append(f"{title}:")
        lines += [f"  {name:<{width}}  {value}" for name, value in section.items()] or ["  none"]
    return Answer(facts, "\n".join(lines), code=1 if "error" in facts["native"] else 0)


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


def _found(section: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A section; where its imports fail, as without a core that loads, the reason."""
    try:
        return section()
    except ImportError as error:
        return {"error": str(error)}


def _versions() -> dict[str, str]:
    """Of what vpd requires, and of what its extras require where that is installed."""
    from importlib.metadata import PackageNotFoundError, requires, version

    import vpd

    found = {"vpd": vpd.__version__, "python": platform.python_version()}
    try:
        declared = requires("vpd") or []
    except PackageNotFoundError:  # a folder on the path, not an installed package
        declared = ["torch", "numpy"]
    for line in sorted(declared, key=lambda line: "extra ==" in line):
        match = re.match(r"[\w.-]+", line)
        name = match[0] if match else line
        try:
            found.setdefault(name, version(name))
        except PackageNotFoundError:
            if "extra ==" not in line:
                found[name] = "not installed"
    return found


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _first(Path("/proc/cpuinfo"), r"model name\s*: (.+)") or platform.processor(),
        "cores": cores,
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
    }
    try:
        found["distribution"] = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        found["distribution"] = "unknown"
    kib = _first(Path("/proc/meminfo"), r"MemTotal:\s*(\d+) kB")
    found["memory"] = f"{int(kib) / 2**20:.1f} GiB" if kib else "unknown"
    return found


def _first(path: Path, pattern: str) -> str:
    try:
        match = re.search(pattern, path.read_text())
    except OSError:
        return ""
    return match[1] if match else ""


def _devices() -> dict[str, str]:
    import torch

    found = {
        "cpu": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "torch's cuda": torch.version.cuda or "none",
    }
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = (
            f"{card.name}, {card.total_memory / 2**30:.0f} GiB, sm_{card.major}{card.minor}"
        )
    return found


def _native() -> dict[str, Any]:
    """What the core was built with, and the devices that its operators have kernels for; where it
    does not load, why."""
    import torch

    from vpd import _build

    found: dict[str, Any] = {"core": str(_build.core_file() or "none")}
    try:
        found |= {f"built: {name}": value for name, value in _build.facts().items()}
        import vpd._load  # noqa: F401
    except ImportError as error:
        return found | {"error": str(error)}
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


def _folders() -> dict[str, str]:
    import vpd
    from vpd.data.tabletop.splits import cache_folder

    return {
        "package": str(Path(vpd.__file__).parent),
        "python": sys.executable,
        "cache": str(cache_folder()),
    }


def _settings() -> dict[str, str]:
    return {name: value for name, value in sorted(os.environ.items()) if _SETTINGS.fullmatch(name)}


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
