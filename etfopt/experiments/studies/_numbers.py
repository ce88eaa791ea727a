"""The numbers of a report: the runs of a study, and every quantity by variant and seed."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from etfopt.errors import InputError
from etfopt.experiments.studies._progress import STUDY, State, divergence, load_study, progress
from etfopt.experiments.studies._sessions import SESSION_QUANTITIES, session_quantities
from etfopt.experiments.studies.plan import Study, Variant
from etfopt.experiments.training._run_folder import read_starts
from etfopt.experiments.training.results import RunResult, load_run

QUANTITIES = {
    "train_accuracy_first": "training top-1, first epoch of the two",
    "train_accuracy_second": "training top-1, second epoch of the two",
    "test_accuracy_first": "test top-1, first epoch of the two",
    "test_accuracy_second": "test top-1, second epoch of the two",
    "epochs_to_99": "epochs to 99 %",
    "epochs_to_100": "epochs to 100 %",
    "epochs_to_margin_1": "epochs to margin 1.0",
    "cosine_margin": "cosine margin",
    "nc1": "NC1",
    "nc2": "NC2",
    "nc3": "NC3",
    "equinorm_difference": "WH-equinorm",
    "etf_distance_means": "distance to ETF",
    "step_ms": "ms a step",
    "step_mib": "MiB a step",
    "head_kib": "KiB of the head",
    **SESSION_QUANTITIES,
}
"""Names of what is reported of a run; measures without an epoch are those of the training split after the last one.

Of a run in sessions only those of sessions are reported, and the cost of a step."""

COLLAPSE = ("cosine_margin", "nc1", "nc2", "nc3", "equinorm_difference", "etf_distance_means")

TAILS = {
    "test_accuracy_head": "test top-1, head classes",
    "test_accuracy_middle": "test top-1, middle classes",
    "test_accuracy_tail": "test top-1, tail classes",
    "train_distance_to_simplex": "distance to simplex",
    "train_distance_to_seli": "distance to SELI",
}
"""The same of runs on imbalanced classes, by the names of their records, after the last epoch."""


@dataclass(frozen=True)
class Spread:
    """The spread of a quantity over seeds; a level that was never reached counts as infinite.

    Attributes
    ----------
    median, low, high : float
        Median, smallest and largest value.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Return the spread of values."""
        numbers = [math.inf if value is None else value for value in values]
        return cls(statistics.median(numbers), min(numbers), max(numbers))


NEEDED = (
    *("train_accuracy", "test_accuracy", "train_cosine_margin", "train_nc1", "train_nc2", "train_nc3"),
    *("train_equinorm_difference", "train_etf_distance_means"),
)
"""Measures of every epoch that a report is made of."""


@dataclass(frozen=True)
class Collected:
    """The runs of a study that are there.

    Attributes
    ----------
    study : Study
    runs : dict of list of RunResult
        Finished runs by variant, all variants in the order of the study, each in the order of the seeds.
    missing : dict
        Progress of unfinished runs, by folder.
    diverged : dict
        Error messages of diverged runs, by folder.
    """

    study: Study
    runs: dict[str, list[RunResult]]
    missing: dict[str, str] = field(default_factory=dict)
    diverged: dict[str, str] = field(default_factory=dict)


def collect(folder: Path) -> Collected:
    """Read the runs of a study's folder, or of any folder whose subfolders are runs named VARIANT-seedN."""
    found = _planned(folder) if (folder / STUDY).exists() else _loose(folder)
    if not any(found.runs.values()):
        raise InputError(f"{folder}: none of its runs is finished, so there is nothing to report")
    return found


def _planned(folder: Path) -> Collected:
    study = load_study(folder)
    found = Collected(study, {variant.name: [] for variant in study.variants})
    for p in progress(folder, study.runs()):
        path = folder / p.run.folder
        if p.state is State.FINISHED:
            found.runs[p.run.variant].append(_loaded(path))
        elif p.state is State.DIVERGED:
            found.diverged[p.run.folder] = str(divergence(path, p.run.config))
        else:
            found.missing[p.run.folder] = f"{p.epochs} of {p.run.config.epochs} epochs"
    return found


def _loose(folder: Path) -> Collected:
    """Take every run in a folder for one of the variant that its name gives."""
    paths = sorted(path.parent for path in folder.glob("*/config.json"))
    if not paths:
        studies = ", ".join(sorted(str(path.parent) for path in folder.glob(f"*/{STUDY}")))
        hint = f"it holds studies: {studies}; report one of them" if studies else "there are no runs in it"
        if (folder / "config.json").exists():
            hint = f"it is a run itself; report the folder that holds it, {folder.resolve().parent}"
        raise InputError(f"{folder}: is not the folder of a study; {hint}")
    variants: dict[str, Variant] = {}
    runs: dict[str, list[RunResult]] = {}
    missing = {}
    for path in paths:
        name, run = re.sub(r"-seed\d+$", "", path.name), _loaded(path)
        config = run.config.with_settings({"seed": 0})
        if variants.setdefault(name, Variant(name, name, "", config)).config.digest() != config.digest():
            raise InputError(f"{path}: differs from the other runs named {name} in more than the seed; rename it")
        runs.setdefault(name, [])
        if run.finished:
            runs[name].append(run)
        else:
            missing[path.name] = f"{max(len(run.history) - 1, 0)} of {config.epochs} epochs"
    for found in runs.values():
        found.sort(key=lambda run: run.config.seed)
    seeds = sorted({run.config.seed for found in runs.values() for run in found})
    study = Study(folder.name, folder.name, "", "", "", tuple(seeds), tuple(variants.values()))
    return Collected(study, runs, missing)


def _loaded(path: Path) -> RunResult:
    """Read a run, with the last class means alone: those of all epochs of all runs may not fit into memory."""
    run = load_run(path)
    for record in run.history:
        if missing := [name for name in NEEDED if name not in record]:
            raise InputError(f"{path}: its record of epoch {record['epoch']} has no {missing[0]}; train it again")
    return replace(run, class_means=run.class_means[-1:].copy())


def two_epochs(study: Study, epochs: tuple[int, int] | None) -> dict[str, tuple[int, int]]:
    """Return for each variant the two epochs of its table: those asked for, or a quarter of all and all."""
    lengths = {variant.name: variant.config.epochs for variant in study.variants}
    if epochs is None:
        return {name: (max(1, length // 4), length) for name, length in lengths.items()}
    first, second = epochs
    if not 0 <= first < second <= min(lengths.values()):
        raise InputError(f"epochs = {first} {second} must increase and be at most {min(lengths.values())}")
    return dict.fromkeys(lengths, epochs)


def quantities(run: RunResult, epochs: tuple[int, int]) -> dict[str, float | None]:
    """Return all `QUANTITIES` of a run, and those of `TAILS` that it has; None is an epoch that never came."""
    cost: dict[str, float | None] = {
        "step_ms": run.step_ms,
        "step_mib": run.step_bytes / 2**20,
        "head_kib": _head_bytes(run) / 2**10,
    }
    if run.config.sessions.count:
        return session_quantities(run) | cost
    first, second = (run.history[epoch] for epoch in epochs)
    last = run.history[-1]
    return {
        "train_accuracy_first": first["train_accuracy"],
        "train_accuracy_second": second["train_accuracy"],
        "test_accuracy_first": first["test_accuracy"],
        "test_accuracy_second": second["test_accuracy"],
        "epochs_to_99": run.epochs_to(0.99),
        "epochs_to_100": run.epochs_to(1.0),
        "epochs_to_margin_1": run.epochs_to(1.0, "train_cosine_margin"),
        **{key: last[f"train_{key}"] for key in COLLAPSE},
        **cost,
        **{key: last[key] for key in TAILS if key in last},
    }


def _head_bytes(run: RunResult) -> float:
    """Return the bytes of the parameters and buffers of the head; NaN if the run did not write them down."""
    found = [start["head_bytes"] for start in read_starts(run.path) if "head_bytes" in start]
    return float(found[-1]) if found else math.nan
