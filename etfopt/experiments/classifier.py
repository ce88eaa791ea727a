"""The Lightning module: a backbone under a head, and the measures of both splits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.config import TrainConfig
from etfopt.experiments.data.augment import augmented
from etfopt.experiments.losses import LOSSES
from etfopt.experiments.optimizers import build_optimizer, build_schedule
from etfopt.metrics import CosineMargin, NeuralCollapse
from etfopt.nn.heads import AnyHead

__all__ = ["Classifier", "SplitMeasures"]


class SplitMeasures(nn.Module):
    """The measures of one split, for features as the head sees them."""

    def __init__(self, head: AnyHead) -> None:
        super().__init__()
        self.collapse = NeuralCollapse(head.num_classes, head.dim)
        self.margin = CosineMargin(head.num_classes, head.dim)

    def update(self, features: Tensor, labels: Tensor, head: AnyHead) -> None:
        """Add a batch of the backbone's features, shape (n, d)."""
        f = head.normalize(features)
        self.collapse.update(f, labels, head.weight, head.bias)
        self.margin.update(f, labels, head.weight, head.bias)

    def finish(self) -> dict[str, float]:
        """Return every measure by name, and start anew."""
        values = {**self.collapse.compute(), "cosine_margin": self.margin.compute()}
        self.collapse.reset()
        self.margin.reset()
        return {name: float(value) for name, value in values.items()}


class Classifier(pl.LightningModule):
    """A backbone and a head with a loss and an optimiser, and neural-collapse measures on both splits.

    Parameters
    ----------
    backbone : nn.Module
        Images to features, (n, d).
    head : LearnedHead, FixedETFHead or NearestETFHead
    config : TrainConfig
    """

    def __init__(self, backbone: nn.Module, head: AnyHead, config: TrainConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.config = config
        self.train_measures = SplitMeasures(head)
        self.test_measures = SplitMeasures(head)
        # one record a validation, the class means of the training split beside it
        self.history: list[dict[str, float]] = []
        self.class_means: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, C)."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch, augmented by draws that depend on seed, epoch, batch and process alone."""
        images, labels = batch
        key = (self.config.seed, self.current_epoch, batch_idx, self.global_rank)
        images = augmented(images, self.config.data.augmentation, *key)
        with self._diverging(f"step {self.global_step + 1}, in epoch {self.current_epoch + 1}"):
            loss = LOSSES[self.config.loss.name](self.head(self.backbone(images), labels), labels)
            if not torch.isfinite(loss):
                raise InputError(f"the loss is {float(loss.detach())}")
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002 - same
        """Add a batch of one split to its measures."""
        images, labels = batch
        measures = (self.train_measures, self.test_measures)[dataloader_idx]
        with self._diverging(f"the end of epoch {self.current_epoch + 1}"):
            measures.update(self.backbone(images), labels, self.head)

    def on_validation_epoch_end(self) -> None:
        """Log the measures of both splits and start them anew."""
        fitted = self.trainer.state.fn == "fit"
        record: dict[str, float] = {"epoch": self.current_epoch + 1 if fitted else 0}
        self.class_means.append(self.train_measures.collapse.class_means())
        for split, measures in (("train", self.train_measures), ("test", self.test_measures)):
            values = {f"{split}_{name}": value for name, value in measures.finish().items()}
            self.log_dict(values)
            record |= values
        self.history.append(record)

    @contextmanager
    def _diverging(self, where: str) -> Iterator[None]:
        """Turn what the head or the measures refuse in a diverging run into an error that says when and what to do."""
        try:
            yield
        except InputError as error:
            optimizer, head = self.config.optimizer, self.config.head
            rate = (
                f"optimizer.gain = {optimizer.gain:g}"
                if optimizer.name == "agd"
                else f"optimizer.learning_rate = {optimizer.learning_rate:g}"
            )
            raise ConvergenceError(
                f"training diverged at {where}: {error}. Lower {rate} or head.temperature = {head.temperature}"
            ) from error

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the configured optimiser over the trainable parameters, and the schedule of its rate, if any."""
        schedule, epochs = self.config.schedule, self.config.training.epochs
        optimizer = build_optimizer(self, self.config.optimizer)
        by_step = schedule.interval == "step"
        epoch_steps = int(self.trainer.estimated_stepping_batches) // epochs if by_step else 1
        scheduler = build_schedule(optimizer, schedule, epochs, epoch_steps)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": schedule.interval}}
