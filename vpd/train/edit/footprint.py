"""What a training of an editor will need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vpd.tasks.editor import Editor
from vpd.train.edit.config import EditTrainConfig
from vpd.train.edit.model import empty_editor
from vpd.train.edit.table import EditBatch
from vpd.train.edit.training import EditRun, EditTraining, Instructions
from vpd.train.footprint import Footprint, counted

__all__ = ["edit_footprint"]


def edit_footprint(config: EditTrainConfig) -> Footprint:
    """Works out what `vpd train edit` will need, by a step on tensors without values: see
    :func:`vpd.train.refer.footprint.footprint`.

    Nothing is read but the foundation's config. Not in it: the data set, and the pictures that are
    sampled between steps.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):  # small constants have values
        model = empty_editor(config)
        table = _BlankPairs(config, model)
        known = () if config.streamed else ("",)
        run = EditRun(model, table, Instructions(model, known, config.train_text))
        module = EditTraining(config, run)
        rows = slice(0, module.shares.rows)

        def loss() -> Tensor:
            batch = table.draw(0, rows)
            t = torch.zeros(module.shares.rows, dtype=torch.int64)
            return module.prediction_errors(batch, batch.mean, batch.std, t, t + 1.0).sum()

        return counted(model, module, config.loop, loss)


class _BlankPairs:
    """Stands for a data set: batches of its shapes, without meaning. Where pictures are encoded in
    every step, it does so too."""

    steps_per_epoch = 1
    texts: Sequence[str] = ("",)

    def __init__(self, config: EditTrainConfig, model: Editor) -> None:
        self._config, self._model = config, model

    def to(self, device: torch.device) -> None:
        """It has nothing to move."""

    def draw(self, step: int, part: slice = slice(None)) -> EditBatch:
        rows, crop, vae = part.stop - part.start, self._config.crop, self._model.config.vae
        if self._config.streamed:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                self._model.vae.encode(torch.zeros(rows, 3, crop, crop))
        side = crop // vae.stride

        def latents() -> Tensor:
            return torch.zeros(rows, vae.embed_dim, side, side)

        return EditBatch(latents(), latents(), latents(), [""] * rows)

    def close(self) -> None:
        """Nothing works ahead here."""
