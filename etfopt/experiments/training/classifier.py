"""The Lightning module: a backbone under a head, and the measures of both splits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.data.augment import augmented
from etfopt.experiments.data.sessions import Session
from etfopt.experiments.networks.growth import grow
from etfopt.experiments.networks.heads import AnyHead
from etfopt.experiments.networks.losses import build_loss
from etfopt.experiments.networks.optimizers import build_optimizer, build_schedule
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.training._sessions import freeze, session_accuracies
from etfopt.experiments.training.measures import Measured, SplitMeasures
from etfopt.experiments.training.shares import share_weight
from etfopt.nn import ETFDistance

__all__ = ["Classifier"]

NAMED = 8
"""Samples of a bad batch that an error names."""


class Classifier(pl.LightningModule):
    """A backbone and a head with a loss and an optimiser, and neural-collapse measures on both splits.

    Parameters
    ----------
    backbone : nn.Module
        Images to features, (n, d).
    head : LearnedHead, FixedETFHead or NearestETFHead
    config : TrainConfig
    counts : Tensor, shape (C,)
        Training samples of each class.
    """

    def __init__(self, backbone: nn.Module, head: AnyHead, config: TrainConfig, counts: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.config = config
        self.loss = build_loss(config.loss, counts)
        # of any scale, and relative: a fixed size, or a plain distance, would let the network's scale decide
        self.distance = ETFDistance(free_scale=True, relative=True)
        self.train_measures = SplitMeasures(head, counts)
        self.test_measures = SplitMeasures(head, counts)
        self.measured: dict[str, Measured] = {}  # by split, at the last validation
        self.session: Session | None = None

    def enter(self, session: Session) -> None:
        """Begin a session: the head takes its classes, and what it does not train is frozen.

        Parameters
        ----------
        session : Session
            The next one. The base session changes nothing.
        """
        self.session = session
        if not session.number:
            return
        grow(self.head, session.classes - session.old, self.config.head, (self.config.seed + session.number) % 2**64)
        counts = torch.ones(session.classes)
        self.train_measures, self.test_measures = (SplitMeasures(self.head, counts) for _ in range(2))
        freeze(self.backbone, self.config.sessions.backbone)

    @property
    def head_bytes(self) -> int:
        """Bytes of the head's parameters and buffers."""
        return sum(tensor.nbytes for tensor in (*self.head.parameters(), *self.head.buffers()))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch of images.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
            Standardised.

        Returns
        -------
        Tensor, shape (n, C)
            Logits.
        """
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        """Return the loss of a batch, such that its mean over the processes is that of the whole batch.

        The batch is augmented by draws that depend on seed, epoch, batch and process alone.

        Returns
        -------
        Tensor, shape (), or None
            The loss; None where nothing depends on parameters that are trained.

        Raises
        ------
        InputError
            If the batch cannot be used.
        """
        images, labels = batch
        key = (self.config.seed, self.current_epoch, batch_idx, self.global_rank)
        images = augmented(images, self.config.data.augmentation, *key)
        with self._diverging(f"step {self.global_step + 1}, in epoch {self.current_epoch + 1}", batch_idx):
            features = self.backbone(images)
            loss = self.loss(self.head(features, labels), labels)
            if weight := self.config.loss.distance_weight:
                loss = loss + weight * self.distance.from_features(self.head.normalize(features), labels)
            if not torch.isfinite(loss):
                raise InputError(f"the loss is {float(loss.detach())}")
        if not loss.requires_grad:  # all is frozen; the head has taken the batch into its statistics
            return None
        return loss * share_weight(labels)

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002 - same
        """Add a batch of one split to its measures."""
        images, labels = batch
        measures = (self.train_measures, self.test_measures)[dataloader_idx]
        with self._diverging(f"the end of epoch {self.current_epoch + 1}"):
            features = self.backbone(images)
            loss = self.loss(self.head(features), labels)
            measures.update(features, labels, self.head, loss)

    def on_validation_epoch_end(self) -> None:
        """Finish the measures of both splits."""
        apart = {}
        if self.session is not None and len(self.session.ends) > 1:
            apart = session_accuracies(self.session, *self.test_measures.right_by_class(self.head))
        self.measured = {"train": self.train_measures.finish(self.head), "test": self.test_measures.finish(self.head)}
        self.measured["test"].values.update(apart)

    @contextmanager
    def _diverging(self, where: str, batch_idx: int | None = None) -> Iterator[None]:
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
            if batch_idx is not None:
                where += f", in batch {batch_idx + 1}{self._samples(batch_idx)}"
            raise ConvergenceError(
                f"training diverged at {where}: {error}. Lower {rate} or head.temperature = {head.temperature}"
            ) from error

    def _samples(self, batch_idx: int) -> str:
        """Name the samples of a batch of this epoch, where the loader's sampler can be asked again."""
        sampler: Any = getattr(self.trainer.train_dataloader, "sampler", None)
        if not hasattr(sampler, "set_epoch"):
            return ""
        indices = next(itertools.islice(sampler, batch_idx, None))
        return f" (samples {', '.join(map(str, indices[:NAMED]))}{', ...' * (len(indices) > NAMED)})"

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the configured optimiser over the trainable parameters, and the schedule of its rate, if any.

        In a later session both are those of this session alone.

        Returns
        -------
        Optimizer, dict or None
            None where nothing is trained.
        """
        schedule, epochs = self.config.schedule, self.config.training.epochs
        settings = self.config.optimizer
        if self.session is not None and self.session.number:
            epochs, rate = self.session.epochs, self.config.sessions.learning_rate
            settings = settings.model_copy(update={} if rate is None else {"learning_rate": rate})
        if not any(p.requires_grad for p in self.parameters()):
            return None
        optimizer = build_optimizer(self, settings)
        by_step = schedule.interval == "step"
        epoch_steps = int(self.trainer.estimated_stepping_batches) // epochs if by_step else 1
        scheduler = build_schedule(optimizer, schedule, epochs, epoch_steps)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": schedule.interval}}
