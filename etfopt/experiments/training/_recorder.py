"""Writes down what was measured after every epoch, in the folder of the run and in its checkpoints."""

from __future__ import annotations

import io
import logging
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor
from torch.nn import functional

from etfopt._memory import Allocations
from etfopt.experiments.training._means import append_means
from etfopt.experiments.training._records import Record, append_line, write_json, write_lines
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.loggers import RunLogger
from etfopt.files import write_atomically

LOG = logging.getLogger(__name__)

LINES = "metrics.jsonl"
MEANS_BY_EPOCH = "class_means_by_epoch.npy"
HISTORY, MEANS, MARGINS = "history.json", "class_means.npy", "margins.npz"

COST = ("step_ms", "step_bytes")
"""Keys of a line besides the measures of its epoch."""

WARM_UP_STEPS = 10


class Recorder(pl.Callback):
    """Times the steps of a run, counts the memory of one, and records its measures.

    After every epoch it writes a line of JSON, the class means of the training split and a record for the logger. At
    the end it writes the history, the last class means and the sorted margins of both splits. A checkpoint holds
    everything that is needed to write them again, except the class means of earlier epochs.

    Attributes
    ----------
    history : list of dict
        One record an epoch, epoch 0 before any training.
    steps_ms : list of float
        Median milliseconds of a training step in each epoch of the history.
    step_bytes : float
        Peak memory of the tensors made in a training step, activations and gradients included. It is measured in the
        second step, because the first also makes the optimiser's state; NaN before.
    steps_bytes : list of float
        `step_bytes` as known in each epoch of the history.
    margins : dict
        Sorted margins of the last epoch by split.
    """

    def __init__(self, path: Path, on_epoch: Callable[[], None] | None, logger: RunLogger | None = None) -> None:
        self.path, self.on_epoch, self.logger = path, on_epoch, logger
        self.history: list[Record] = []
        self.steps_ms: list[float] = []
        self.step_bytes, self.steps_bytes = math.nan, list[float]()
        self.margins: dict[str, Tensor] = {}
        self._seconds: list[float] = []
        self._start = 0.0
        self._allocations: Allocations | None = None

    # --- time and memory -----------------------------------------------------------------------------------------

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Start the clock, or the counter of bytes."""
        if trainer.global_step and math.isnan(self.step_bytes):
            self._allocations = Allocations(module.device).__enter__()
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop the clock, or the counter; a step that is watched takes longer, and is not timed."""
        if self._allocations is None:
            self._seconds.append(time.perf_counter() - self._start)
        else:
            self.step_bytes = float(self._stop_counting())

    def _stop_counting(self) -> int:
        allocations, self._allocations = self._allocations, None
        if allocations is None:
            return 0
        allocations.__exit__(None, None, None)
        return allocations.peak

    def step_ms(self) -> float:
        """Return the median over the epochs of the median step in milliseconds; NaN if there was none."""
        return statistics.median([ms for ms in self.steps_ms if not math.isnan(ms)] or [math.nan])

    def _epoch_ms(self) -> float:
        first = len(self.steps_ms) <= 1  # epoch 0 is before any step
        seconds = self._seconds[WARM_UP_STEPS if first and len(self._seconds) > WARM_UP_STEPS else 0 :]
        self._seconds = []
        return 1e3 * statistics.median(seconds or [math.nan])

    # --- records -------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Bring the files to the state of the checkpoint that was loaded, if one was."""
        if trainer.is_global_zero and trainer.current_epoch:
            self.write_lines()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Record what was measured."""
        assert isinstance(module, Classifier)
        epoch = trainer.current_epoch + 1 if trainer.state.fn == "fit" else 0
        measured = module.measured
        record: Record = {"epoch": epoch}
        for split, found in measured.items():
            record |= {f"{split}_{name}": value for name, value in found.values.items()}
        told = (record[f"{split}_{name}"] for split in measured for name in ("loss", "accuracy"))
        LOG.info("%s: epoch %d: loss %.4g, accuracy %.4g; test loss %.4g, accuracy %.4g", self.path, epoch, *told)
        self.history.append(record)
        self.steps_ms.append(self._epoch_ms())
        self.steps_bytes.append(self.step_bytes)
        self.margins = {split: found.margins for split, found in measured.items()}
        if trainer.is_global_zero:
            means = measured["train"].class_means
            more = 0 if module.session is None else module.session.ends[-1] - means.shape[1]
            self._write(epoch, functional.pad(means, (0, more)))  # classes that are not there yet have zeros

    def _write(self, epoch: int, means: Tensor) -> None:
        append_means(self.path / MEANS_BY_EPOCH, means.numpy(), epoch)
        append_line(self.path / LINES, self._line(epoch))
        if self.logger:
            self.logger.log(self._lines())

    def _line(self, epoch: int) -> Record:
        return {**self.history[epoch], "step_ms": self.steps_ms[epoch], "step_bytes": self.steps_bytes[epoch]}

    def _lines(self) -> list[Record]:
        return list(map(self._line, range(len(self.history))))

    def on_train_epoch_end(self, *_: Any) -> None:
        """Report a finished epoch."""
        if self.on_epoch:
            self.on_epoch()

    # --- the end -------------------------------------------------------------------------------------------------

    def write_lines(self) -> None:
        """Write the lines of all epochs anew."""
        write_lines(self.path / LINES, self._lines())

    def write_history(self) -> None:
        """Write all records into one file."""
        write_json(
            self.path / HISTORY, {"step_ms": self.step_ms(), "step_bytes": self.step_bytes, "epochs": self.history}
        )

    def write_results(self, last_means: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        """Write what a finished run leaves: history, last class means, sorted margins."""
        arrays = {MEANS: lambda file: np.save(file, last_means), MARGINS: self._save_margins}
        for name, save in arrays.items():
            buffer = io.BytesIO()
            save(buffer)
            write_atomically(self.path / name, buffer.getvalue())
        self.write_history()

    def _save_margins(self, file: io.BytesIO) -> None:
        np.savez(file, train=self.margins["train"].numpy(), test=self.margins["test"].numpy())

    def close(self, status: str) -> None:
        """Stop counting, also in the middle of a step, and finish the log."""
        self._stop_counting()
        if self.logger:
            self.logger.close(status)

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "history": self.history,
            "steps_ms": self.steps_ms,
            "steps_bytes": self.steps_bytes,
            "margins": self.margins,
            "logger": [self.logger.name, self.logger.version] if self.logger else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self.history, self.steps_ms = list(state_dict["history"]), list(state_dict["steps_ms"])
        self.steps_bytes, self.margins = list(state_dict["steps_bytes"]), dict(state_dict["margins"])
        self.step_bytes = self.steps_bytes[-1]
        name, version = state_dict["logger"] or (None, None)
        if self.logger and self.logger.name == name:
            self.logger.version = version
