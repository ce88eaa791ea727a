"""Settings chosen for every variant of a study by their accuracy on a part of the training split.

Each variant is trained with every combination of the values to try. Its test split is then a share of the training
split, the same for all variants, and the real test split is not looked at (``data.validation``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies._progress import STUDY, State, load_study, progress
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.runs import run_study
from etfopt.experiments.training._recorder import LINES
from etfopt.experiments.training._records import read_lines

__all__ = ["TUNING", "Tried", "best", "chosen", "is_chosen", "tried", "tried_with", "tune"]

TUNING = "tuning"
"""Folder of these runs, in the folder of the study."""

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
        The same, by the names of the settings.
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


def tune(study: Study, folder: Path, **options: Any) -> Study:
    """Choose the settings of a study that are to be tuned, and return the study with them.

    The runs lie in ``folder/tuning``. Finished ones are skipped, interrupted ones resumed.

    Parameters
    ----------
    study : Study
        A study without tuning is returned as it is.
    folder : Path
        Folder of the study.
    **options
        As of `run_study`.

    Returns
    -------
    Study
        Every variant with its own best settings; see `best`.

    Raises
    ------
    InputError
        If a run cannot be made; as `run_study` says.
    ConvergenceError
        If a variant diverges with every combination.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from etfopt.experiments.studies.plan_file import parse_study
    >>> from etfopt.experiments.studies.tuning import tune
    >>> plan = {
    ...     "title": "Two heads",
    ...     "question": "Which one is better, each at its own learning rate?",
    ...     "seeds": [0, 1],
    ...     "base": {"training.epochs": 1, "backbone.width": 16, "backbone.dim": 12},
    ...     "variants": [{"name": "learned", "head.name": "learned"}, {"name": "nearest"}],
    ...     "tuning": {"seeds": [2], "grid": {"optimizer.learning_rate": [1e-6, 0.1]}},
    ... }
    >>> study = tune(parse_study(plan, "two"), Path(tempfile.mkdtemp()))
    >>> [variant.config.optimizer.learning_rate for variant in study.variants]
    [0.1, 0.1]
    """
    if study.tuning is None:
        return study
    for outcome in run_study(study.tuning, folder / TUNING, **options):
        if outcome.error and not isinstance(outcome.error, ConvergenceError):
            raise outcome.error
    return chosen(study, folder)


def chosen(study: Study, folder: Path) -> Study:
    """Return a study with the settings that its finished tuning runs choose.

    Parameters
    ----------
    study : Study
        A study with tuning.
    folder : Path
        Folder of the study.

    Returns
    -------
    Study
        The same study, nothing left to tune.

    Raises
    ------
    InputError
        If tuning runs are not finished.
    ConvergenceError
        If a variant diverges with every combination.
    """
    tries = tried(folder, study.tuning)
    winners = [best([t for t in tries if t.variant == v.name]) for v in study.variants]
    variants = [
        replace(v, config=v.config.with_settings(winner.settings))
        for v, winner in zip(study.variants, winners, strict=True)
    ]
    return replace(study, variants=tuple(variants), tuning=None)


def tried(folder: Path, plan: Study | None = None) -> list[Tried]:
    """Return what was tried in the tuning of a study, in the order of its file.

    Parameters
    ----------
    folder : Path
        Folder of the study.
    plan : Study, optional
        Plan of the tuning; the default is that of the folder, and nothing was tried without one.

    Returns
    -------
    list of Tried
        For each variant every combination.

    Raises
    ------
    InputError
        If runs are not finished.
    """
    folder = folder / TUNING
    if plan is None:
        if not (folder / STUDY).exists():
            return []
        plan = load_study(folder)
    found: dict[str, dict[int, float | None]] = {variant.name: {} for variant in plan.variants}
    waiting = []
    for p in progress(folder, plan.runs()):
        if p.state is State.FINISHED:
            found[p.run.variant][p.run.seed] = read_lines(folder / p.run.folder / LINES)[-1]["test_accuracy"]
        elif p.state is State.DIVERGED:
            found[p.run.variant][p.run.seed] = None
        else:
            waiting.append(p.run.folder)
    if waiting:
        raise InputError(
            f"{folder}: {len(waiting)} of {len(plan.runs())} runs that choose settings are not finished, such as "
            f"{waiting[0]}; finish them by the command that trains the study"
        )
    return [
        Tried(v.head, v.cell, v.config, {name: _value(v.config, name) for name in plan.varied}, found[v.name])
        for v in plan.variants
    ]


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
    return {name: value for name in names if (value := _value(tried.config, name)) != _value(ours, name)}


def _settled(study: Study, tried: Tried) -> TrainConfig:
    return next(variant.config for variant in study.variants if variant.name == tried.variant)


def _value(config: TrainConfig, name: str) -> Any:
    """Return a setting by its dotted name, options included."""
    found: Any = config
    for part in name.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


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
