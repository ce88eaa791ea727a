"""What a training run is: one frozen record, checked when it is made and written beside the results."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Self

import torch

from etfopt.errors import InputError
from etfopt.experiments.data.names import FOLDER, known_classes
from etfopt.experiments.settings._companions import completed, left_open, named
from etfopt.experiments.settings._data import DataConfig
from etfopt.experiments.settings._fields import Section, integer, setting
from etfopt.experiments.settings._model import BackboneConfig, HeadConfig, LossConfig
from etfopt.experiments.settings._training import OptimizerConfig, ScheduleConfig, TrainingConfig
from etfopt.files import strict_json
from etfopt.files._text import parse_json, parse_toml, read_bounded
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead
from etfopt.nn.heads import Head

__all__ = ["TrainConfig", "build_head", "read_config"]

LARGEST_HEAD = 2**29
"""Weights of a classifier: 2 GiB in float32. It is made when a configuration is."""

LARGEST = 2**20
"""Bytes of a configuration: 1 MiB."""


@dataclass(frozen=True)
class TrainConfig(Section):
    """Settings of one run. Two runs that differ in `head` alone see the same batches and the same initial backbone.

    A record is a value: equal settings make equal records with equal `digest`, and `from_dict(to_dict())` gives the
    record back. The topics are ``config.data``, ``config.backbone``, ``config.head``, ``config.loss``,
    ``config.optimizer``, ``config.schedule`` and ``config.training`` (epochs, batch size, clipping).

    Attributes
    ----------
    seed : int
        Seeds the backbone, the head, the order of the batches and the augmentation, each from its own generator.
    data : DataConfig
    backbone : BackboneConfig
    head : HeadConfig
    loss : LossConfig
    optimizer : OptimizerConfig
    schedule : ScheduleConfig
    training : TrainingConfig

    Raises
    ------
    InputError
        If a name is unknown (the known ones are listed), a number is out of range, or settings do not go together.
    """

    seed: int = setting(0, integer(0, 2**64 - 1))
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_backbone()
        self._check_optimizer()
        epochs, last = self.training.epochs, max([self.schedule.warmup, *self.schedule.milestones])
        if last >= epochs:
            raise InputError(f"the schedule goes on at epoch {last:g}, and training.epochs = {epochs}; train longer")
        # its confidence is a probability that cross-entropy gives
        if self.loss.name == "dot-regression" and self.head.temperature == "auto":
            raise InputError("head.temperature = 'auto' is made for cross-entropy; dot-regression needs a number, 1")
        C = known_classes(self.data)
        if C is not None:  # the head's own check of d against C, before any data are read
            self._check_size(C)
            build_head(self, C)

    def _check_size(self, C: int) -> None:
        d = self.backbone.feature_dim
        if C * d > LARGEST_HEAD:
            raise InputError(
                f"the classifier of C = {C} classes and d = {d} features has {C * d:.3g} weights; at most "
                f"{LARGEST_HEAD:.3g} are taken: set backbone.dim or the number of classes smaller"
            )

    def _check_backbone(self) -> None:
        free, ufm = self.backbone.name == "free", self.data.name == "ufm"
        if free != ufm:
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
            "none" as no value, numbers between commas as a list.

        Raises
        ------
        InputError
            If a name is not known, or a value is refused.
        """
        values, hints = left_open(self.to_dict(), settings, type(self)().to_dict()), _hints(type(self))
        for name, value in settings.items():
            topic, _, key = name.rpartition(".")
            if name not in hints:
                near = [known for known in hints if known.startswith(f"{topic}.")] or list(hints)
                raise InputError(f"unknown setting {name}; known are: {', '.join(near)}")
            (values[topic] if topic else values)[key] = _typed(value, hints[name]) if isinstance(value, str) else value
        return type(self).from_dict(values)

    @property
    def label(self) -> str:
        """A short name for people and folders: data, head and seed, such as "digits-nearest-seed0"."""
        data = re.sub(r"[^\w.-]+", "-", self.data.name.removeprefix(FOLDER)).strip("-.")
        return f"{data or 'folder'}-{self.head.name}-seed{self.seed}"

    def save(self, path: Path) -> None:
        """Write the record as JSON, which `read_config` reads.

        Parameters
        ----------
        path : Path
            Of the file, replaced if it is there.
        """
        path.write_text(strict_json(self.to_dict()))


def _hints(kind: type[Section], prefix: str = "") -> dict[str, Any]:
    """Return the types of all settings by their names, "seed" or "optimizer.learning_rate"."""
    hints: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if isinstance(hint, type) and issubclass(hint, Section):
            hints |= _hints(hint, f"{prefix}{name}.")
        else:
            hints[prefix + name] = hint
    return hints


def _typed(text: str, hint: Any) -> Any:
    """Read a setting's value from a string; what cannot be read is left to the setting's own check."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) is not tuple else (tuple,)
    kinds = kinds or (hint,)
    words = {None: NoneType, True: bool, False: bool}
    for word, kind in words.items():
        if kind in kinds and text.lower() == str(word).lower():
            return word
    if tuple in kinds:
        return [_typed(item.strip(), float) for item in text.strip("[] ").split(",") if item.strip()]
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def read_config(path: Path, settings: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a configuration from a ``.json`` or ``.toml`` file.

    Parameters
    ----------
    path : Path
        Of the file.
    settings : mapping, optional
        Settings that replace those of the file, as in `TrainConfig.with_settings`.

    Returns
    -------
    TrainConfig
        Settings that the file does not name have their defaults.

    Raises
    ------
    InputError
        If the file is missing, of another kind or damaged, a setting is not known, or a value is refused.
    """
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
            values = values["config"]
        config = TrainConfig.from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config.with_settings({**named(values), **settings}) if settings else config


def build_head(config: TrainConfig, num_classes: int) -> Head:
    """Return the head that a configuration names.

    Parameters
    ----------
    config : TrainConfig
        Of which the head, the backbone's dimension and the seed count.
    num_classes : int
        C.

    Returns
    -------
    NearestETFHead, FixedETFHead or LearnedHead
        In training mode.

    Raises
    ------
    InputError
        If d is smaller than C and the head's rows are an ETF.

    Examples
    --------
    >>> from etfopt.experiments.settings import TrainConfig, build_head
    >>> config = TrainConfig().with_settings({"head.name": "fixed", "backbone.dim": 12})
    >>> build_head(config, num_classes=10).weight.shape
    torch.Size([10, 12])
    """
    head, dim = config.head, config.backbone.feature_dim
    if head.name != "learned" and dim < num_classes:  # the head itself would offer a frame, which is no setting
        raise InputError(
            f"dim = {dim} is smaller than the r = {num_classes} rows of the frame; set backbone.dim to at least "
            f"C = {num_classes}, or use head.name = 'learned'"
        )
    if head.name == "learned":
        learned = LearnedHead(dim, num_classes, temperature=head.temperature)
        if config.optimizer.name == "agd":
            torch.nn.init.orthogonal_(learned.rows)
        return learned
    if head.name == "fixed":
        generator = torch.Generator().manual_seed(config.seed) if head.rotation == "random" else None
        return FixedETFHead(dim, num_classes, temperature=head.temperature, generator=generator)
    return NearestETFHead(
        dim,
        num_classes,
        delta=head.delta,
        temperature=head.temperature,
        averaging=head.averaging,
        implicit_gradient=head.implicit_gradient,
        freeze_after=head.freeze_after,
        solve_every=head.solve_every,
        method=head.method,
        shrinkage=head.shrinkage,
        evaluation_shrinkage=head.evaluation_shrinkage,
        classify_first=head.classify_first,
    )
