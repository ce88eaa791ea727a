"""How a run trains: optimiser, schedule, epochs and batches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from etfopt._scalars import as_positive
from etfopt.errors import InputError
from etfopt.experiments.settings._options import Frozen, Options
from etfopt.experiments.settings._section import Section, setting
from etfopt.experiments.settings.names import OPTIMIZERS, OptimizerName, is_own

LARGEST_RATE = 1e38
"""About the largest number of float32."""


def _milestones(value: Any) -> tuple[float, ...]:
    if not isinstance(value, tuple):
        raise InputError(f"schedule.milestones must be a list of epochs; got {value!r}")
    epochs = tuple(as_positive(epoch, "schedule.milestones") for epoch in value)
    if list(epochs) != sorted(set(epochs)):
        raise InputError(f"schedule.milestones must increase; got {list(epochs)}")
    return epochs


class OptimizerConfig(Section):
    """How parameters are updated."""

    name: OptimizerName = setting(
        "sgd",
        f"Optimiser: {OPTIMIZERS.listed}. agd is automatic gradient descent "
        "(`etfopt.experiments.networks.optimizers.AGD`). It has no learning rate: of these settings it takes `gain` "
        "alone.",
        option=True,
    )
    learning_rate: float = setting(
        0.05, "Learning rate at the start, or after the warm-up.", option=True, gt=0, le=LARGEST_RATE
    )
    momentum: float = setting(0.9, "Momentum of SGD.", ge=0, le=1)
    nesterov: bool = setting(False, "Whether SGD uses Nesterov's momentum.")
    beta1: float = setting(0.9, "Decay rate of the mean gradient in Adam and AdamW.", ge=0, le=0.999999)
    beta2: float = setting(0.999, "Decay rate of the squared gradient in Adam and AdamW.", ge=0, le=0.999999)
    weight_decay: float = setting(5e-4, "Weight decay, as in PyTorch's optimisers.", option=True, ge=0, le=LARGEST_RATE)
    decay: Literal["all", "matrices"] = setting(
        "all", "Parameters that decay; matrices leaves out biases and normalisation layers."
    )
    gain: float = setting(10.0, "Factor on the steps of AGD; the paper's release takes 10.", gt=0, le=LARGEST_RATE)
    options: Options = setting(Frozen(), "More keyword arguments of the optimiser.", since="0.2")

    @model_validator(mode="after")
    def _go_together(self) -> OptimizerConfig:
        if is_own(self.name):
            fields = type(self).model_fields
            for key in ("momentum", "nesterov", "beta1", "beta2", "gain"):
                if getattr(self, key) != fields[key].default:
                    raise InputError(
                        f"optimizer.{key} is for the built-in optimisers; give {self.name} its own arguments in "
                        f"optimizer.options, as in optimizer.options.{key}"
                    )
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise InputError(
                f"optimizer.nesterov needs SGD with momentum; got name = {self.name!r}, momentum = {self.momentum:g}"
            )
        return self


class ScheduleConfig(Section):
    """How the learning rate changes, after `warmup` epochs in which it rises linearly."""

    name: Literal["constant", "cosine", "step"] = setting(
        "cosine",
        "Schedule of the learning rate; cosine falls to zero by the end of the run.",
        option=True,
    )
    warmup: float = setting(0.0, "Epochs in which the rate rises.", option=True, ge=0)
    milestones: Annotated[tuple[float, ...], BeforeValidator(_milestones)] = setting(
        (), "Epochs, counted from the start, after which the schedule step multiplies the rate by `decay`."
    )
    decay: float = setting(0.1, "Factor of the schedule step.", gt=0, le=1)
    interval: Literal["epoch", "step"] = setting("epoch", "When the rate changes; with step, after every batch.")

    @property
    def uses_length(self) -> bool:
        """Whether the rate in an epoch depends on how many epochs are planned: a cosine ends with the run."""
        return self.name == "cosine"

    @model_validator(mode="after")
    def _go_together(self) -> ScheduleConfig:
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
        return self


class TrainingConfig(Section):
    """How long and in what batches. On what machine and in what precision is not a setting but an option of `train`."""

    epochs: int = setting(60, "Passes over the training split.", option=True, ge=1)
    batch_size: int = setting(  # batch normalisation cannot take one sample
        128, "Samples in a training step, over all processes.", option=True, ge=2
    )
    gradient_clip: float | None = setting(None, "Largest norm of the gradient.", gt=0)
