"""Training of an editor: the noise of the edited picture, told the picture before and the
instruction (Brooks et al. 2023, equation 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpd.data.edit_files import EditPair
from vpd.diffusion import NoiseSchedule, Sampler
from vpd.losses import epsilon_loss
from vpd.randomness import named_generator
from vpd.tasks.editor import Editor
from vpd.train.edit.config import EditTrainConfig
from vpd.train.edit.pairs import Pairs
from vpd.train.edit.table import EditBatch, EditTable, PairLatents
from vpd.train.loop.batches import Resident, step_generator
from vpd.train.loop.optimizer import optimizer_of
from vpd.train.loop.parts import PartsTraining
from vpd.train.loop.progress import show
from vpd.train.pretrain.probes import NOISE_ONLY
from vpd.viz.edit import edit_figure

__all__ = ["EditRun", "EditTraining", "Instructions", "dropped", "edit_probe"]

_DRAWN = 4  # pairs of a validation's picture
_STEPS = 20  # of their sampling
_TOGETHER = 64  # rows of a pass without gradients
_MOST_BYTES = 2**30  # of states that are kept in memory


class Instructions:
    """Token states of instructions; each is encoded once if the text encoder does not train and
    they are known beforehand, as far as they fit in a gigabyte.

    Args:
        model: Its text encoder.
        texts: What is known beforehand.
        trained: Whether the text encoder trains.
    """

    def __init__(self, model: Editor, texts: Sequence[str], trained: bool) -> None:
        self._model = model
        distinct = sorted({*texts, ""})
        size = 4 * model.config.token_length * model.config.text.hidden_size
        self._places: dict[str, int] = {}
        if texts and not trained and size * len(distinct) <= _MOST_BYTES:
            self._places = {text: place for place, text in enumerate(distinct)}
            with torch.no_grad():
                groups = range(0, len(distinct), _TOGETHER)
                states = [model.encode_text(distinct[i : i + _TOGETHER]) for i in groups]
            self._kept = Resident(states=torch.cat(states))

    def __deepcopy__(self, memo: dict[int, Any]) -> Instructions:
        return self

    def to(self, device: torch.device) -> None:
        if self._places:
            self._kept.to(device)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[B, N, C]."""
        if not self._places:
            return self._model.encode_text(list(texts))
        return self._kept["states"][[self._places[text] for text in texts]]


def dropped(luck: NDArray[np.float64], share: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which samples lack their instruction, and which their picture.

    Args:
        luck: [B], uniform in [0, 1).
        share: Of those that lack the instruction alone, of those that lack both and of those that
            lack the picture alone: they follow each other in this order.

    Returns:
        bool [B], twice.
    """
    return luck < 2 * share, (luck >= share) & (luck < 3 * share)


@dataclass(frozen=True)
class EditRun:
    """What a training works on. It stands where Lightning does not look: only the parts that train
    are averaged and saved in checkpoints. Copies of the training share it."""

    model: Editor
    table: EditTable
    instructions: Instructions
    val: PairLatents | None = None
    shown: Pairs | None = None
    """The pairs of ``val``."""

    def __deepcopy__(self, memo: dict[int, Any]) -> EditRun:
        return self


class EditTraining(PartsTraining):
    """One run of a recipe. Its own parameters are those of the U-Net, and of the text encoder if
    that trains."""

    def __init__(self, config: EditTrainConfig, run: EditRun) -> None:
        super().__init__(config.loop.batch, config.loop.micro_batch)
        self.config, self.run = config, run
        run.model.unet.recompute = config.recompute
        run.model.requires_grad_(False)
        self.unet = run.model.unet.requires_grad_(True)
        if config.train_text:
            self.text = run.model.text.requires_grad_(True)
        self._schedule = NoiseSchedule()

    def setup(self, stage: str) -> None:
        run = self.run
        run.model.to(self.device)
        for part in (run.table, run.instructions, run.val):
            if part is not None:
                part.to(self.device)

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        config, size = self.config, self.config.loop.batch
        batch = self.run.table.draw(step, rows)
        generator = step_generator(config.seed + 1, step, self.device)

        def normal() -> Tensor:
            shape = (size, *batch.mean.shape[1:])
            return torch.randn(shape, generator=generator, device=self.device)[rows]

        clean = batch.mean + batch.std * normal()
        noise = normal()
        t = torch.randint(1000, (size,), generator=generator, device=self.device)[rows]
        luck = np.random.default_rng((config.seed, step)).random(size)[rows]
        loss = self.errors(_without(batch, *dropped(luck, config.dropout)), clean, noise, t)
        return {"loss": loss.sum() / size}

    def errors(self, batch: EditBatch, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The loss of each row, [B].

        Args:
            batch: What the U-Net is told.
            clean: Latents of the edited pictures, not scaled.
            noise: Same shape.
            t: int64 [B].
        """
        scale = self.run.model.config.scale_factor
        noisy = self._schedule.add_noise(clean * scale, noise, t)
        alpha_bar = self._schedule.alpha_bar(t).float()
        return self.prediction_errors(batch, noisy, noise, t, alpha_bar)

    def prediction_errors(
        self, batch: EditBatch, noisy: Tensor, noise: Tensor, t: Tensor, alpha_bar: Tensor
    ) -> Tensor:
        """The same from latents [B, C, h, w] with their noise, whose share of signal is
        ``alpha_bar`` [B]."""
        states = self.run.instructions(batch.texts)
        seen = torch.cat([noisy, batch.image], dim=1)
        predicted = self.run.model.unet(seen, t, states, taps=NOISE_ONLY).noise
        assert predicted is not None
        cap = self.config.weight_cap
        return epsilon_loss(predicted, noise, alpha_bar, cap=cap, reduction="none")

    def validation_step(self, _: int) -> None:
        self.log_dict(edit_probe(self), prog_bar=True, batch_size=1)
        if self.run.shown is not None and self.trainer.is_global_zero:
            pairs = [self.run.shown.pair(i) for i in range(min(_DRAWN, sum(self.run.shown.counts)))]
            self._show(pairs)

    def _show(self, pairs: Sequence[EditPair]) -> None:
        results = self.run.model.edit(
            [pair.before for pair in pairs],
            [pair.triplet.edit for pair in pairs],
            sampler=Sampler("euler_ancestral", _STEPS),
            seed=0,
        )
        show(self, edit_figure(results, [pair.after for pair in pairs]))

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        total, share = self.config.loop.steps, self.config.decay_share
        return optimizer_of(
            [{"params": list(self.parameters())}],
            self.config.loop,
            lambda step: min(1.0, (1 - step / total) / share + 0.01) if share > 0 else 1.0,
        )


@torch.no_grad()
def edit_probe(training: EditTraining) -> dict[str, float]:
    """The loss on the watched pairs, always under the same noise at timesteps that lie evenly, with
    nothing left out.

    Returns:
        ``val_loss``; ``rise/text`` and ``rise/image``: its relative rise in percent with another
        pair's instruction, and with another pair's picture.
    """
    val = training.run.val
    assert val is not None
    count = len(val.texts)
    sums = {"own": 0.0, "text": 0.0, "image": 0.0}
    for start in range(0, count, _TOGETHER):
        rows = range(start, min(start + _TOGETHER, count))
        batch, other = (val.read([(row + by) % count for row in rows]) for by in (0, 1))
        drawn = [
            torch.randn(batch.mean.shape[1:], generator=named_generator("cpu", "edit probe", row))
            for row in rows
        ]
        noise = torch.stack(drawn).to(batch.mean)
        t = torch.tensor([(2 * row + 1) * 1000 // (2 * count) for row in rows], device=noise.device)
        told = {
            "own": batch,
            "text": EditBatch(batch.image, batch.mean, batch.std, other.texts),
            "image": EditBatch(other.image, batch.mean, batch.std, batch.texts),
        }
        for name, one in told.items():
            sums[name] += float(training.errors(one, batch.mean, noise, t).sum())
    rises = {f"rise/{name}": 100 * (sums[name] / sums["own"] - 1) for name in ("text", "image")}
    return {"val_loss": sums["own"] / count, **rises}


def _without(batch: EditBatch, text: NDArray[np.bool_], image: NDArray[np.bool_]) -> EditBatch:
    """A batch whose rows lack what they are to lack."""
    texts = ["" if gone else own for own, gone in zip(batch.texts, text, strict=True)]
    keep = torch.tensor([float(not gone) for gone in image], device=batch.image.device)
    keep = keep[:, None, None, None]
    return EditBatch(batch.image * keep, batch.mean, batch.std, texts)
