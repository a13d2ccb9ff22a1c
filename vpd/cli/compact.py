"""``vpd compact``."""

from __future__ import annotations

from pathlib import Path

from vpd.cli.answer import Answer


def compact(model: str, out: Path, *, megabytes: float = 4) -> Answer:
    """Writes a fine-tuned model again within a size: what its training changed of its foundation is
    cut down to low rank. Score it again (vpd evaluate): it is worse by a little.

    Args:
        model: a shipped model's name, or the folder of one that names its foundation
        out: the folder to write
        megabytes: the most that its weights may take (10^6 bytes)
    """
    from vpd.tasks import store

    cut = store.compact(model, out, megabytes)
    size = (out / "model.safetensors").stat().st_size
    return Answer(
        {"out": str(out), "bytes": size, "cut": cut},
        f"wrote {out}: {size / 1e6:.1f} MB, {100 * cut:.1f} % of the changes cut off (in squares)",
    )
