"""The demonstration: a built-in study of three heads, its report, one certified ETF and a figure of the cosines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from etfopt import Solution, nearest_etf
from etfopt.experiments.studies.pages import REPORT_KEYS, write_report
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.plan_file import parse_study
from etfopt.experiments.studies.report import Report, make_report
from etfopt.experiments.studies.runs import run_study
from etfopt.experiments.training.results import RunResult, load_run
from etfopt.files import refuse_occupied
from etfopt.plotting import cosines, draw_matrix, draw_off_diagonal, save

__all__ = ["Demonstration", "demo_study", "draw_cosines", "run_demo"]


@dataclass(frozen=True)
class Demonstration:
    """Results of the demonstration.

    Attributes
    ----------
    report : Report
        The report of the study.
    nearest : Solution
        The ETF nearest to the last class means of the first run with the nearest-ETF head, scaled to norm 1.
    files : tuple of Path
        The files that were written, besides the runs.
    """

    report: Report
    nearest: Solution
    files: tuple[Path, ...]


def demo_study(epochs: int) -> Study:
    """Return the study: a perceptron on scikit-learn's digits under each head, with three seeds.

    Parameters
    ----------
    epochs : int
        Epochs of every run; 60 show collapse.

    Returns
    -------
    Study
        Nine runs.
    """
    values = {
        "title": "Three heads on handwritten digits",
        "question": "Do networks with learned, fixed and nearest-ETF heads collapse alike?",
        "seeds": [0, 1, 2],
        "base": {"training.epochs": epochs},
        "variants": [{"name": head, "head.name": head} for head in ("learned", "fixed", "nearest")],
    }
    return parse_study(values, "demo")


def run_demo(
    study: Study, folder: Path, on_epoch: Callable[[], None] | None = None, *, overwrite: bool = False
) -> Demonstration:
    """Train a study, write its report, and certify the ETF nearest to class means that a network learned.

    Parameters
    ----------
    study : Study
        One from `demo_study`.
    folder : Path
        Folder of everything that is written: a folder for each run, and ``report``.
    on_epoch : callable, optional
        Called after every epoch.
    overwrite : bool
        Whether earlier runs in the folder are replaced. Otherwise runs with the same settings are resumed, and
        finished ones are used as they are.

    Returns
    -------
    Demonstration
        The numbers to print.

    Raises
    ------
    InputError
        If the folder holds runs with other settings and `overwrite` is False, or files of other origin.
    """
    picture = folder / "report" / "cosines.png"
    refuse_occupied([folder / "report" / "report.json", picture], REPORT_KEYS, "an earlier report", overwrite=True)
    for outcome in run_study(study, folder, on_epoch=on_epoch, overwrite=overwrite):
        if outcome.error:
            raise outcome.error
    report = make_report(folder)
    files = write_report(report, folder / "report")
    runs: dict[str, list[RunResult]] = {}
    for run in study.runs():
        runs.setdefault(run.variant, []).append(load_run(folder / run.folder))
    draw_cosines(runs, picture)
    H = _shown(runs).class_means[-1]
    return Demonstration(report, nearest_etf(H / np.linalg.norm(H)), (*files, picture))


def _shown(groups: Mapping[str, Sequence[RunResult]]) -> RunResult:
    runs = [run for group in groups.values() for run in group]
    return next((run for run in runs if run.config.head.name == "nearest"), runs[0])


def draw_cosines(groups: Mapping[str, Sequence[RunResult]], path: Path) -> None:
    """Draw how the class means turn into a simplex ETF.

    Above, the matrix of cosines between the class means of the first nearest-ETF run at four epochs, and the ETF's.
    Below, the mean distance of its off-diagonal entries from -1/(C-1), for every variant.
    """
    shown = _shown(groups)
    C, last = shown.class_means.shape[2], len(shown.class_means) - 1
    target = np.where(np.eye(C) > 0, 1.0, -1 / (C - 1))
    figure = Figure(figsize=(12, 6), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.0, 1.1])[:, 0]
    epochs = sorted({0, min(1, last), last // 4, last})
    matrices = [(f"epoch {epoch}", cosines(shown.class_means[epoch])) for epoch in epochs] + [("simplex ETF", target)]
    panels = above.subplots(1, len(matrices))
    for axes, (title, matrix) in zip(panels, matrices, strict=True):
        draw_matrix(matrix, title, axes=axes)
    above.colorbar(panels[-1].images[0], ax=panels, shrink=0.9, label="cosine")
    above.suptitle(f"Cosines between the class means, head: {shown.config.head.name}")
    draw_off_diagonal(groups, axes=below.subplots()).legend(frameon=False)
    save(panels[0], path)
