"""What was tried to choose the settings of a study, what is best of it, and what the study took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from etfopt.errors import ConvergenceError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies.plan import Study

__all__ = ["Tried", "at_edges", "best", "is_chosen", "tried_with", "value_of"]

ROUNDING = 1e-9
"""Mean accuracies that differ by less are equal."""


@dataclass(frozen=True)
class Tried:
    """One combination of values for one variant of a study.

    Attributes
    ----------
    variant : str
        Name of the study's variant.
    values : str
        The combination, such as "optimizer.learning_rate=0.05, head.temperature=5".
    config : TrainConfig
        Configuration of the runs that tried it.
    settings : dict
        Names and values of the settings in the combination.
    accuracies : dict
        Validation accuracy after the last epoch by seed; None if the run diverged.
    """

    variant: str
    values: str
    config: TrainConfig
    settings: dict[str, Any]
    accuracies: dict[int, float | None]

    @property
    def mean(self) -> float:
        """Mean validation accuracy over the seeds; -inf if a run diverged."""
        return fmean(-math.inf if value is None else value for value in self.accuracies.values())


def best(tries: Sequence[Tried]) -> Tried:
    """Return the combination with the highest mean validation accuracy; of equal ones the first.

    A combination that diverged with one of its seeds is left out. List learning rates from the smallest, so that the
    smallest of equally good ones is chosen.

    Parameters
    ----------
    tries : sequence of Tried
        All combinations of one variant, in the order of the file.

    Returns
    -------
    Tried
        One of them.

    Raises
    ------
    ConvergenceError
        If all diverged.
    """
    highest = max(t.mean for t in tries)
    if highest == -math.inf:
        raise ConvergenceError(
            f"variant {tries[0].variant!r} diverged with every combination that was tried; try smaller learning rates"
        )
    return next(t for t in tries if t.mean >= highest - ROUNDING)


def is_chosen(study: Study, tried: Tried) -> bool:
    """Return whether the runs of a study have a combination of values.

    Parameters
    ----------
    study : Study
        As it was trained.
    tried : Tried
        A combination for one of its variants.

    Returns
    -------
    bool
    """
    config = _settled(study, tried)
    return config == config.with_settings(tried.settings)


def tried_with(study: Study, tried: Tried) -> dict[str, Any]:
    """Return the settings of the runs that tried a combination where those of the study's runs are others.

    Parameters
    ----------
    study : Study
        As it was trained.
    tried : Tried
        A combination for one of its variants.

    Returns
    -------
    dict
        From names to values, without the combination and the validation split.
    """
    ours, own = _settled(study, tried), ("data.validation", *tried.settings)
    names = [name for name, _ in TrainConfig.settings() if not any(key.startswith(name) for key in ("seed", *own))]
    return {name: value for name in names if (value := value_of(tried.config, name)) != value_of(ours, name)}


def at_edges(study: Study, tries: Sequence[Tried]) -> list[str]:
    """Return what was chosen at an end of three or more numbers: a value beyond it may be better still.

    Parameters
    ----------
    study : Study
        As it was trained.
    tries : sequence of Tried
        All combinations of all its variants.

    Returns
    -------
    list of str
        Variant, setting and value of each.
    """
    found = []
    for name in tries[0].settings if tries else ():
        values = {t.settings[name] for t in tries}
        if len(values) > 2 and all(isinstance(value, int | float) for value in values):
            ends = min(values), max(values)
            chosen = [t for t in tries if is_chosen(study, t) and t.settings[name] in ends]
            found += [f"{t.variant} ({name} = {t.settings[name]:g})" for t in chosen]
    return found


def _settled(study: Study, tried: Tried) -> TrainConfig:
    return next(variant.config for variant in study.variants if variant.name == tried.variant)


def value_of(config: TrainConfig, name: str) -> Any:
    """Return a setting by its dotted name, options included."""
    found: Any = config
    for part in name.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found
