"""How far a run has come, for whoever shows it: nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from etfopt.experiments.training._recorder import Recorder

__all__ = ["RunProgress"]


@dataclass(frozen=True)
class RunProgress:
    """The state of a run after a training step or an epoch.

    Attributes
    ----------
    epoch, epochs : int
        The current epoch, from 1, and how many there will be.
    step, steps : int
        Finished steps of this epoch, and how many it has.
    record : mapping
        The last measures: ``train_loss``, ``test_accuracy``, ... Those of epoch 0 belong to the untrained network.
    epoch_ended : bool
        Whether the epoch is finished: measured, and saved in a checkpoint.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    record: Mapping[str, float]
    epoch_ended: bool

    @property
    def share(self) -> float:
        """Finished share of all steps, from 0 to 1."""
        return (self.epoch - 1 + self.step / max(self.steps, 1)) / self.epochs


class Reporter(pl.Callback):
    """Calls a function after every step and epoch, in the first process alone. Comes after all other callbacks."""

    def __init__(self, recorder: Recorder, tell: Callable[[RunProgress], None], epochs: int) -> None:
        self.recorder, self.tell, self.epochs = recorder, tell, epochs

    def on_train_batch_end(self, trainer: pl.Trainer, _module: Any, _outputs: Any, _batch: Any, batch_idx: int) -> None:
        """Report a step."""
        self._report(trainer, batch_idx + 1, ended=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: Any) -> None:
        """Report an epoch."""
        self._report(trainer, int(trainer.num_training_batches), ended=True)

    def _report(self, trainer: pl.Trainer, step: int, *, ended: bool) -> None:
        if trainer.is_global_zero:
            steps = int(trainer.num_training_batches)
            self.tell(
                RunProgress(trainer.current_epoch + 1, self.epochs, step, steps, self.recorder.history[-1], ended)
            )
