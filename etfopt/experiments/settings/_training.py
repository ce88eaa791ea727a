"""How a run trains: optimiser, schedule, epochs and batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from etfopt.errors import InputError
from etfopt.experiments.settings._fields import Section, choice, flag, integer, number, optional, setting

__all__ = ["OptimizerConfig", "ScheduleConfig", "TrainingConfig"]

LARGEST_RATE = 1e38
"""About the largest number of float32."""


def _milestones(value: Any, name: str) -> tuple[float, ...]:
    if not isinstance(value, tuple):
        raise InputError(f"{name} must be a list of epochs; got {value!r}")
    epochs = tuple(number(above=0)(item, name) for item in value)
    if list(epochs) != sorted(set(epochs)):
        raise InputError(f"{name} must increase; got {list(epochs)}")
    return epochs


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """How parameters are updated.

    Attributes
    ----------
    name : "sgd", "adam", "adamw" or "agd"
        AGD is automatic gradient descent (`etfopt.experiments.networks.optimizers.AGD`). It has no learning rate: of
        these settings it takes `gain` alone.
    learning_rate, weight_decay : float
    momentum, nesterov
        Of SGD.
    beta1, beta2 : float
        Of Adam and AdamW.
    decay : "all" or "matrices"
        What the weight decay acts on; "matrices" leaves out biases and the parameters of normalisation layers.
    gain : float
        Factor on the steps of AGD; the paper's release takes 10.

    Raises
    ------
    InputError
        If a value is refused.
    """

    name: str = setting("sgd", choice("sgd", "adam", "adamw", "agd"))
    learning_rate: float = setting(0.05, number(most=LARGEST_RATE, above=0))
    momentum: float = setting(0.9, number(0, 1))
    nesterov: bool = setting(False, flag)
    beta1: float = setting(0.9, number(0, 0.999999))
    beta2: float = setting(0.999, number(0, 0.999999))
    weight_decay: float = setting(5e-4, number(0, LARGEST_RATE))
    decay: str = setting("all", choice("all", "matrices"))
    gain: float = setting(10.0, number(most=LARGEST_RATE, above=0))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise InputError(
                f"optimizer.nesterov needs SGD with momentum; got name = {self.name!r}, momentum = {self.momentum:g}"
            )


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """How the learning rate changes, after `warmup` epochs in which it rises linearly.

    Attributes
    ----------
    name : "constant", "cosine" or "step"
        "cosine" falls to zero as a half cosine by the end of the run.
    warmup : float
        Epochs.
    milestones : tuple of float
        Of "step": the epochs, counted from the start of the run, after which the rate is multiplied by `decay`.
    decay : float
        Of "step".
    interval : "epoch" or "step"
        When it changes; with "step", after every batch.

    Raises
    ------
    InputError
        If a value is refused.
    """

    name: str = setting("cosine", choice("constant", "cosine", "step"))
    warmup: float = setting(0.0, number(0))
    milestones: tuple[float, ...] = setting((), _milestones)
    decay: float = setting(0.1, number(most=1, above=0))
    interval: str = setting("epoch", choice("epoch", "step"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.name == "step") != bool(self.milestones):
            raise InputError(
                f"schedule.name = {self.name!r} and schedule.milestones = {list(self.milestones)} do not go together; "
                "'step' needs milestones, the others take none"
            )
        epochs = [self.warmup, *self.milestones]
        if self.interval == "epoch" and any(not epoch.is_integer() for epoch in epochs):
            raise InputError(f"schedule.interval = 'epoch' needs whole epochs; got {epochs}; 'step' takes fractions")
        if self.milestones and self.milestones[0] <= self.warmup:
            raise InputError(f"schedule.milestones must come after the warm-up of {self.warmup:g} epochs")


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How long and in what batches. On what machine and in what precision is not a setting but an option of `train`.

    Attributes
    ----------
    epochs : int
        Passes over the training split.
    batch_size : int
        Samples of a step, over all processes.
    gradient_clip : float, optional
        Largest norm of the gradient.
    """

    epochs: int = setting(60, integer(1))
    batch_size: int = setting(128, integer(2))  # batch normalisation cannot take one sample
    gradient_clip: float | None = setting(None, optional(number(above=0)))
