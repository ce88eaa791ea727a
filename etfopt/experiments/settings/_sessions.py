"""Classes that come in sessions: how many, with which images, and what is trained when they come."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from etfopt.errors import InputError
from etfopt.experiments.settings._data import DataConfig
from etfopt.experiments.settings._model import HeadConfig, LossConfig
from etfopt.experiments.settings._section import Section, setting
from etfopt.experiments.settings._training import LARGEST_RATE, ScheduleConfig


class SessionsConfig(Section):
    """Classes that come in sessions, for class-incremental learning. By default there are none: all come at once.

    The base session has all classes but those that come later, and trains as every run does. Each later session adds
    `classes` classes, and trains `epochs` epochs on their images and on the images of older classes that are kept.
    """

    count: int = setting(0, "Sessions after the base session; 0 trains all classes at once.", since="0.2", ge=0)
    classes: int = setting(1, "Classes that each later session adds.", since="0.2", ge=1)
    images: int | None = setting(
        None, "Training images of each added class; None is all. 5 is usual for few-shot learning.", since="0.2", ge=1
    )
    buffer: int = setting(
        0,
        "Training images of each older class that later sessions train on too; 0 is none. They are drawn once.",
        since="0.2",
        ge=0,
    )
    epochs: int = setting(10, "Epochs of each later session.", since="0.2", ge=1)
    backbone: Literal["fine-tuned", "last-layer", "frozen"] = setting(
        "fine-tuned",
        "What later sessions train below the head: all, the last linear layer, or nothing. Normalisation layers that "
        "are not trained keep their statistics.",
        since="0.2",
    )
    batch_size: int | None = setting(
        None, "Samples of a step in later sessions, which have few images; None is that of training.", since="0.2", ge=2
    )
    learning_rate: float | None = setting(
        None, "Learning rate of later sessions; None is that of the optimiser.", since="0.2", gt=0, le=LARGEST_RATE
    )
    order: Literal["drawn", "given"] = setting(
        "drawn",
        "Order in which classes come: drawn from the run's seed, alike for all heads, or that of the data.",
        since="0.2",
    )

    @model_validator(mode="after")
    def _go_together(self) -> SessionsConfig:
        if self.count:
            return self
        for name, field in type(self).model_fields.items():
            if getattr(self, name) != field.default:
                raise InputError(
                    f"sessions.{name} = {getattr(self, name)!r} is for runs in sessions; set sessions.count too, the "
                    "number of sessions after the base session"
                )
        return self

    def base(self, C: int) -> int:
        """Return the number of classes of the base session.

        Parameters
        ----------
        C : int
            Number of all classes.

        Returns
        -------
        int

        Raises
        ------
        InputError
            If fewer than two are left for it.
        """
        base = C - self.count * self.classes
        if base < 2:
            raise InputError(
                f"sessions.count = {self.count} sessions of sessions.classes = {self.classes} leave {base} of C = {C} "
                "classes for the base session, which needs 2; set one of them smaller"
            )
        return base

    def check_with(self, data: DataConfig, head: HeadConfig, loss: LossConfig, schedule: ScheduleConfig) -> None:
        """Refuse settings that do not go with sessions, or that need them.

        Parameters
        ----------
        data, head, loss, schedule : Section
            Of the same run.

        Raises
        ------
        InputError
            If so.
        """
        if not self.count:
            if head.growth != "least" or head.growth_weight != 1:
                raise InputError(
                    "head.growth and head.growth_weight say what a head does when classes come; set sessions.count too"
                )
            return
        reasons = {
            "data.name = 'ufm': use images": data.name == "ufm",
            "label noise or an imbalance: leave them out": data.label_noise > 0 or data.imbalance != "none",
            "numbers of samples: use another head.frame than 'seli', and another loss.name than 'logit-adjustment'": (
                head.frame == "seli" or loss.name == "logit-adjustment"
            ),
            "a schedule of steps or with a warm-up, since each session has its own: use 'constant' or 'cosine', by "
            "epoch": schedule.name == "step" or schedule.warmup > 0 or schedule.interval != "epoch",
            "head.statistics = 'paper', which has no place for new classes: use 'running'": (
                head.statistics == "paper" and head.name in ("fixed", "nearest")
            ),
        }
        for reason, holds in reasons.items():
            if holds:
                raise InputError(f"sessions.count = {self.count} does not go with {reason}")
