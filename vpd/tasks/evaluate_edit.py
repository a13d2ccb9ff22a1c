"""How well an editor does what it is told, and how much it leaves alone (Brooks et al. 2023,
section 4.1): one row of scores for each choice of its two guidances."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpd.data.files import atomic_write, json_lines
from vpd.diffusion import SampleNoise, Sampler
from vpd.diffusion.sampler import Method
from vpd.images import in_range
from vpd.metrics.edit import EditRegionMetrics, EditSimilarity, edit_scores
from vpd.models.clip import CLIP
from vpd.tables import markdown_table
from vpd.tasks.edit_samples import EditPairs, EditSample, batches, chosen, stacked
from vpd.tasks.editor import Editor
from vpd.tasks.foundation import Foundation
from vpd.tasks.sdedit import sdedit

__all__ = ["EditSetting", "edit_table", "evaluate_edit", "read_rows", "sweep_settings"]

_RATIOS = ("edited_region_error_ratio", "unedited_region_error_ratio")
_SIMILARITIES = ("sim_0", "sim_1", "sim_direction", "sim_image")
_SEEDS = 1_000_003  # pictures of one seed
_UNGUIDED = dict.fromkeys(("scale_txt", "scale_img", "strength"))


@dataclass(frozen=True)
class EditSetting:
    """A way to edit every picture: an editor under two guidances; or, with a strength,
    :func:`vpd.tasks.sdedit.sdedit`, which knows but one."""

    scale_txt: float = 7.5
    scale_img: float | None = 1.5
    strength: float | None = None

    def __post_init__(self) -> None:
        if (self.scale_img is None) == (self.strength is None):
            raise ValueError(
                "EditSetting: an editor has scale_img, SDEdit a strength; got "
                f"scale_img={self.scale_img} and strength={self.strength}"
            )

    @property
    def method(self) -> str:
        return "editor" if self.strength is None else "sdedit"


def sweep_settings(
    scale_txt: Sequence[float] = (7.5,),
    scale_img: Sequence[float] = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2),
    strengths: Sequence[float] = (),
) -> list[EditSetting]:
    """Every pair of guidances, and SDEdit of every strength under each text guidance. The defaults
    are InstructPix2Pix' trade-off curve."""
    found = [EditSetting(text, image) for text in scale_txt for image in scale_img]
    return found + [EditSetting(text, None, one) for text in scale_txt for one in strengths]


def evaluate_edit(
    editor: Editor,
    pairs: EditPairs,
    settings: Sequence[EditSetting] | None = None,
    *,
    samples: int | None = 5000,
    steps: int = 100,
    sampler: Method = "euler_ancestral",
    resolution: int | None = None,
    seed: int = 0,
    clip: CLIP | None = None,
    foundation: Foundation | None = None,
    names: dict[str, str] | None = None,
    batch: int = 8,
    out: Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Scores an editor on pairs whose true edited picture is known.

    Every setting edits the same pictures from the same noise, drawn by (seed, picture). A row ends
    with: ``sim_0``, ``sim_1``, ``sim_direction`` and ``sim_image``, means over pictures, where
    there is a CLIP (:func:`vpd.metrics.edit_scores`); where the edited region is known, also those
    of :class:`vpd.metrics.EditRegionMetrics` and its two ratios for each kind of edit,
    ``recolor/...``. The first row, of method ``truth``, is what the true edited pictures score.

    Args:
        editor: Edits by instruction.
        pairs: Pairs with their texts.
        settings: Guidances; :func:`sweep_settings` of defaults if None.
        samples: Pictures, a choice drawn by seed; None: all.
        steps: Of the sampler.
        sampler: Its method, for SDEdit too.
        resolution: As :meth:`vpd.Editor.edit` takes it.
        seed: Of the choice and of the noise.
        clip: Measures similarities.
        foundation: Text-to-image model that SDEdit draws with.
        names: What rows call the ``model``, ``clip`` and ``data``.
        batch: Pictures that go through the networks together.
        out: JSON Lines file of the rows. Each is there as soon as it is computed, and not computed
            again when the same is asked for the same weights.
        progress: Show a bar for each row.

    Returns:
        Rows in the order of ``settings``, the true pictures' first.

    Raises:
        ValueError: No pair or no setting, SDEdit without a foundation, numbers below 1, or a file
            of other content.
    """
    settings = sweep_settings() if settings is None else list(settings)
    places = chosen(pairs, samples, seed)
    if not settings or not places or batch < 1:
        raise ValueError(
            f"expected settings, pairs and a batch of at least 1 each, got {len(settings)}, "
            f"{len(places)} and {batch}"
        )
    if foundation is None and any(setting.method == "sdedit" for setting in settings):
        raise ValueError("SDEdit needs a foundation, a text-to-image model to draw with")
    size = resolution or editor.config.image_size
    work = _Work(editor, foundation, Sampler(sampler, steps), steps, size, seed, clip)
    common = {
        "data": (names or {}).get("data", type(pairs).__name__),
        "split": _split(pairs), "num_samples": len(places), "steps": steps, "sampler": sampler,
        "res": size, "seed": seed, "clip": (names or {}).get("clip") if clip else None,
    }  # fmt: skip
    drawn_by = {"sdedit": _weights(foundation)}
    own, known = _weights(editor), read_rows(out) if out is not None else []
    found = []
    for setting in (None, *settings):
        method = "truth" if setting is None else setting.method
        key = {
            "method": method, **(_UNGUIDED if setting is None else asdict(setting)), **common,
            "model": (names or {}).get("model"), "weights": drawn_by.get(method, own),
        }  # fmt: skip
        row = next((row for row in known if key.items() <= row.items()), None)
        if row is None:
            parts = batches(
                pairs, places, resolution=size, multiple=editor.config.multiple, batch=batch,
                seed=seed,
            )  # fmt: skip
            label = method if setting is None else f"{method} {_label(setting)}"
            row = {**key, **work.score(setting, parts, len(places), label if progress else None)}
            known.append(row)
            if out is not None:
                with atomic_write(out) as file:
                    file.write(json_lines(known).encode())
        found.append(row)
    return found


class _Work:
    """What all settings share."""

    def __init__(
        self,
        editor: Editor,
        foundation: Foundation | None,
        sampler: Sampler,
        steps: int,
        resolution: int,
        seed: int,
        clip: CLIP | None,
    ) -> None:
        self._editor, self._foundation, self._clip = editor, foundation, clip
        self._sampler, self._steps = sampler, steps
        self._resolution, self._seed = resolution, seed

    def score(
        self, setting: EditSetting | None, parts: Any, count: int, label: str | None
    ) -> dict[str, Any]:
        """Scores of a setting, or of the true edited pictures; ``label`` names the bar."""
        from tqdm import tqdm

        similarity, seconds = EditSimilarity(), 0.0
        regions: dict[str, EditRegionMetrics] = {}
        with tqdm(total=count, desc=label, unit="picture", disable=label is None) as bar:
            for part in parts:
                start = time.perf_counter()
                edited = self._edited(setting, part)
                seconds += time.perf_counter() - start
                if self._clip is not None:
                    similarity.update(_similarities(self._clip, part, edited))
                if part[0].mask is not None:
                    self._compare(regions, part, edited)
                bar.update(len(part))
        scores: dict[str, Any] = {}
        if self._clip is not None:
            means = similarity.compute()
            scores = {name: means[name] for name in _SIMILARITIES}
        for kind, metrics in regions.items():
            means = metrics.compute()
            wanted = _RATIOS if kind else [name for name in means if name not in ("n", "skipped")]
            scores |= {(f"{kind}/" if kind else "") + name: means[name] for name in wanted}
        return {**scores, "seconds": seconds}

    def _edited(self, setting: EditSetting | None, part: list[EditSample]) -> Tensor:
        """Edited pictures, float32 [B, 3, H, W] in [-1, 1] on the CPU."""
        if setting is None:
            return stacked([one.after for one in part])
        places = [one.place for one in part]
        if setting.strength is not None:
            assert self._foundation is not None
            return sdedit(
                self._foundation,
                stacked([one.before for one in part]),
                [one.pair.triplet.output for one in part],
                strength=setting.strength,
                sampler=self._sampler,
                noise=SampleNoise(self._seed, places),
                guidance=setting.scale_txt,
            ).cpu()
        found = self._editor.edit(
            [one.pair.before for one in part],
            [one.pair.triplet.edit for one in part],
            text_guidance=setting.scale_txt,
            image_guidance=setting.scale_img or 0.0,
            sampler=self._sampler,
            seed=[self._seed * _SEEDS + place for place in places],
            resolution=self._resolution,
            batch=len(part),
        )
        return stacked([one.image for one in found])

    def _compare(
        self, regions: dict[str, EditRegionMetrics], part: list[EditSample], edited: Tensor
    ) -> None:
        after = stacked([one.after for one in part])
        copies = _reconstructed(self._editor, after)
        for row, one in enumerate(part):
            assert one.mask is not None
            pictures = (edited[row], in_range(one.before), after[row], copies[row])
            new, old, true, copy = (((picture + 1) / 2)[None] for picture in pictures)
            mask = torch.from_numpy(one.mask)[None]
            for kind in ("", *([one.kind] if one.kind else [])):
                metrics = regions.setdefault(kind, EditRegionMetrics())
                metrics.update(new, old, true, mask, copy)


@torch.no_grad()
def _reconstructed(editor: Editor, pictures: Tensor) -> Tensor:
    """The autoencoder's copies of pictures [B, 3, H, W] in [-1, 1]."""
    return editor.vae.decode(editor.encode_image(pictures)).float().clamp(-1, 1).cpu()


def _similarities(clip: CLIP, part: list[EditSample], edited: Tensor) -> Any:
    triplets = [one.pair.triplet for one in part]
    return edit_scores(
        clip,
        stacked([one.before for one in part]),
        edited,
        [triplet.input for triplet in triplets],
        [triplet.output for triplet in triplets],
    )


def _weights(model: torch.nn.Module | None) -> str | None:
    from vpd.train.caching.row_store import digest

    return None if model is None else digest(model)


def _split(pairs: Any) -> str | None:
    return getattr(pairs, "split", None) or getattr(getattr(pairs, "source", None), "name", None)


def _label(setting: EditSetting) -> str:
    if setting.strength is not None:
        return f"text {setting.scale_txt:g}, strength {setting.strength:g}"
    return f"text {setting.scale_txt:g}, image {setting.scale_img:g}"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of :func:`evaluate_edit`; none where there is no file.

    Raises:
        ValueError: It holds something else.
    """
    if not path.is_file():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected a JSON object a line: {error}") from error
    if not all(isinstance(row, dict) and "method" in row for row in rows):
        raise ValueError(f"{path}: expected rows of an evaluation of edits, got something else")
    return rows


def edit_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a table in Markdown: settings, similarities and error ratios."""
    shown: dict[str, Callable[[Any], str]] = {
        "method": str, "scale_txt": _plain, "scale_img": _plain, "strength": _plain,
    }  # fmt: skip
    names = [name for name in (*_SIMILARITIES, *_RATIOS) if any(name in row for row in rows)]
    lines = [[*shown, *(name.removesuffix("_error_ratio") for name in names)]]
    for row in rows:
        own = [form(row[name]) for name, form in shown.items()]
        lines.append(own + ["-" if row.get(n) is None else f"{row[n]:.3f}" for n in names])
    return markdown_table(lines)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
