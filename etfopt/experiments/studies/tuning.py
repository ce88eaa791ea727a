"""Settings chosen for every variant of a study by their accuracy on a part of the training split.

Each variant is trained with every combination of the values to try. Its test split is then a share of the training
split, the same for all variants, and the real test split is not looked at (``data.validation``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.studies._progress import STUDY, State, load_study, progress
from etfopt.experiments.studies._tried import Tried, best, value_of
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.runs import run_study
from etfopt.experiments.training._recorder import LINES
from etfopt.experiments.training._records import read_lines

__all__ = ["TUNING", "Tried", "best", "chosen", "tried", "tune"]

TUNING = "tuning"
"""Folder of these runs, in the folder of the study."""


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
        Tried(v.head, v.cell, v.config, {name: value_of(v.config, name) for name in plan.varied}, found[v.name])
        for v in plan.variants
    ]
