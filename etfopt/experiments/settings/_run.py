"""What a training run is: one frozen record, checked when it is made and written beside the results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from etfopt.errors import InputError, nearest
from etfopt.experiments.settings._companions import completed, left_open, named
from etfopt.experiments.settings._data import DataConfig
from etfopt.experiments.settings._model import BackboneConfig, HeadConfig, LossConfig
from etfopt.experiments.settings._options import guessed
from etfopt.experiments.settings._section import Section, setting, typed
from etfopt.experiments.settings._sessions import SessionsConfig
from etfopt.experiments.settings._training import OptimizerConfig, ScheduleConfig, TrainingConfig
from etfopt.experiments.settings.names import FOLDER

LARGEST_HEAD = 2**29
"""Weights of a classifier: 2 GiB in float32."""

ENDLESS = 10**9
"""Epochs of no run."""

LARGEST = 2**20
"""Bytes of a configuration: 1 MiB."""


class TrainConfig(Section):
    """Settings of one run. Two runs that differ in `head` alone see the same batches and the same initial backbone.

    A record is a value: equal settings make equal records with equal `digest`, and ``from_dict(to_dict())`` gives the
    record back. Making one imports no PyTorch and draws no random number: names and numbers alone are checked.

    Examples
    --------
    >>> from etfopt.experiments.settings import TrainConfig
    >>> config = TrainConfig().with_settings({"head.name": "fixed", "optimizer.learning_rate": 0.1})
    >>> config.head.name, config.label
    ('fixed', 'digits-fixed-seed0')
    """

    seed: int = setting(
        0,
        "Seed of backbone, head, order of the batches and augmentation; each has its own generator.",
        option=True,
        ge=0,
        le=2**64 - 1,
    )
    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    sessions: SessionsConfig = SessionsConfig()

    @model_validator(mode="after")
    def _go_together(self) -> TrainConfig:
        self._check_backbone()
        self._check_optimizer()
        self.sessions.check_with(self.data, self.head, self.loss, self.schedule)
        epochs, last = self.training.epochs, max([self.schedule.warmup, *self.schedule.milestones])
        if last >= epochs:
            raise InputError(
                f"the schedule still changes at epoch {last:g}, and training.epochs = {epochs}; train longer"
            )
        # its confidence is a probability that cross-entropy gives
        if self.loss.name == "dot-regression" and self.head.temperature == "auto":
            raise InputError("head.temperature = 'auto' is made for cross-entropy; dot-regression needs a number, 1")
        if (C := self.data.known_classes) is not None:  # before any data are read
            self.check_room(C)
        return self

    @property
    def epochs(self) -> int:
        """Number of epochs of the whole run: those of the base session, and of all later ones."""
        return self.training.epochs + self.sessions.count * self.sessions.epochs

    def check_room(self, C: int) -> None:
        """Refuse a classifier that is too large, or has too few dimensions for its frame.

        Parameters
        ----------
        C : int
            Number of classes.

        Raises
        ------
        InputError
            If so, with the setting to change.
        """
        self.sessions.base(C)
        d = self.backbone.feature_dim
        if C * d > LARGEST_HEAD:
            raise InputError(
                f"the classifier of C = {C} classes and d = {d} features has {C * d:.3g} weights; at most "
                f"{LARGEST_HEAD:.3g} are taken: set backbone.dim or the number of classes smaller"
            )
        if self.loss.distance_weight and d < C - 1:
            raise InputError(
                f"loss.distance_weight = {self.loss.distance_weight:g} needs a simplex of C = {C} classes; set "
                f"backbone.dim to at least {C - 1}, got {d}, or leave it out"
            )
        if d < (r := self.head.rows(C)):
            frame = "'reduced'" if d == C - 1 else "'best', which is no simplex"
            raise InputError(
                f"dim = {d} is smaller than the r = {r} rows of the frame; set backbone.dim to at least {r}, or "
                f"use head.frame = {frame}, or head.name = 'learned'"
            )

    def _check_backbone(self) -> None:
        if (self.backbone.name == "free") != (self.data.name == "ufm"):
            raise InputError(
                f"data.name = {self.data.name!r} and backbone.name = {self.backbone.name!r} do not go together: the "
                "unconstrained-features model is 'ufm' with the backbone 'free'"
            )

    def _check_optimizer(self) -> None:
        if self.optimizer.name != "agd":
            return
        reasons = {
            "it has no learning rate: use schedule.name = 'constant' without warm-up": (
                self.schedule.name != "constant" or self.schedule.warmup > 0
            ),
            "its steps are for weight matrices: use backbone.affine = false": self.backbone.affine,
            "its steps are for weight matrices, which free features are not: use another optimizer": (
                self.backbone.name == "free"
            ),
        }
        for reason, holds in reasons.items():
            if holds:
                raise InputError(f"optimizer.name = 'agd': {reason}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the record of a nested dictionary, such as `to_dict` gives; what is left out has its default.

        The default of ``head.temperature`` is 1 with the loss "dot-regression", that of ``backbone.name`` is "free"
        with the data "ufm".

        Parameters
        ----------
        values : mapping
            From topics to mappings, and the seed.

        Returns
        -------
        TrainConfig
            Checked.

        Raises
        ------
        InputError
            If a key is not known (the known ones are listed), or a value is refused.
        """
        return super().from_dict(completed(values))

    def with_settings(self, settings: Mapping[str, Any]) -> Self:
        """Return the record with some settings replaced.

        A setting that still has its default gets the one that goes with the new settings: features of norm 1 with
        dot-regression, the backbone "free" with the data "ufm".

        Parameters
        ----------
        settings : mapping
            From names such as "seed" or "optimizer.learning_rate" to values; a string is read as the setting's type,
            "none" as no value, numbers between commas as a list. "backbone.options.depth" names one of the options.

        Raises
        ------
        InputError
            If a name is not known, or a value is refused.
        """
        values, known = self.to_dict(), dict(type(self).settings())
        left_open(values, settings, type(self)().to_dict())
        for name, value in settings.items():
            topic, _, key = str(name).partition(".")
            table = values.setdefault(topic, {}) if name in known and key else values
            if key.startswith("options.") and f"{topic}.options" in known:
                *tables, option = key.removeprefix("options.").split(".")
                inner = values[topic].setdefault("options", {})
                for part in tables:
                    inner = inner.setdefault(part, {})
                if not option or not isinstance(inner, dict):
                    raise InputError(f"{name}: there is no such option; write it as in {topic}.options.depth=3")
                inner[option] = guessed(value) if isinstance(value, str) else value
            elif name in known:
                table[key or topic] = typed(value, known[name].annotation) if isinstance(value, str) else value
            else:
                near = [known_name for known_name in known if key and known_name.startswith(f"{topic}.")]
                raise InputError(f"unknown setting {name}; {nearest(name, known)}known are: {', '.join(near or known)}")
        return type(self).from_dict(values)

    def prolonged(self, epochs: int) -> Self:
        """Return the record of the same run with another number of epochs: both train their common epochs alike.

        Parameters
        ----------
        epochs : int
            Passes over the training split, at least 1.

        Returns
        -------
        TrainConfig
            With ``training.epochs`` replaced.

        Raises
        ------
        InputError
            If the learning rate depends on the number of epochs, as that of a cosine does; or the number is refused.
        """
        planned = self.training.epochs
        if self.sessions.count and epochs != planned:
            raise InputError(
                f"training.epochs = {epochs}: the later sessions of this run follow on {planned} epochs",
                "epochs",
                epochs,
                "train anew in another folder",
            )
        if self.schedule.uses_length and epochs != planned:
            raise InputError(
                f"training.epochs = {epochs}: this run is planned for {planned} epochs, and the rate of its "
                f"schedule.name = {self.schedule.name!r} falls to zero by the last of them. Continued to {epochs} "
                f"epochs, it would not be a run of {epochs} epochs",
                "epochs",
                epochs,
                f"train anew with --config RUN/config.json --epochs {epochs} --out ANOTHER; runs with the schedule "
                "'constant' or 'step' can be continued",
            )
        return self.model_copy(update={"training": self.training.model_copy(update={"epochs": epochs})})

    def course(self) -> str:
        """Return the `digest` of all that decides how an epoch is trained.

        Runs of equal course that differ in ``training.epochs`` train their common epochs alike, so the shorter can be
        continued. The number of epochs counts only if the schedule uses it.

        Returns
        -------
        str
            16 hexadecimal digits.
        """
        return self.digest() if self.schedule.uses_length or self.sessions.count else self.prolonged(ENDLESS).digest()

    @property
    def label(self) -> str:
        """A short name for people and folders: data, head and seed, such as "digits-nearest-seed0"."""
        data = re.sub(r"[^\w.-]+", "-", self.data.name.removeprefix(FOLDER)).strip("-.")
        head = self.head.name.rpartition(":")[2]
        return f"{data or 'folder'}-{head}-seed{self.seed}"

    def save(self, path: Path) -> None:
        """Write the record as JSON, which `read_config` reads.

        Parameters
        ----------
        path : Path
            Of the file, replaced if it is there.
        """
        from etfopt.files import strict_json

        path.write_text(strict_json(self.to_dict()))


def read_config(path: Path, settings: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a configuration from a ``.json`` or ``.toml`` file.

    Parameters
    ----------
    path : Path
        Of the file.
    settings : mapping, optional
        Settings that replace those of the file, by the names that `TrainConfig.with_settings` takes.

    Returns
    -------
    TrainConfig
        Settings that the file does not name have their defaults.

    Raises
    ------
    InputError
        If the file is missing, of another kind or damaged, a setting is not known, or a value is refused.
    """
    from etfopt.files._text import parse_json, parse_toml, read_bounded

    readers = {".json": parse_json, ".toml": parse_toml}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: a file that ends in .toml or .json is needed")
    try:
        values = readers[path.suffix.lower()](read_bounded(path, LARGEST))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        if isinstance(values, dict) and values.keys() == {"schema", "config"}:  # as a run writes it
            config = TrainConfig.from_record(values["config"])
        elif _saved_by_0_1(values):
            config = TrainConfig.from_record(values)
        else:
            config = TrainConfig.from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config.with_settings({**named(values), **settings}) if settings else config


def _saved_by_0_1(values: object) -> bool:
    """Whether `TrainConfig.save` of release 0.1 wrote this: it named every setting that there was."""
    head = values.get("head") if isinstance(values, dict) else None
    return isinstance(head, dict) and "averaging" in head and "statistics" not in head and "implicit_gradient" in head
