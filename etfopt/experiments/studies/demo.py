"""The demonstration: three heads, three seeds, one table, one certified ETF, two figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from etfopt import Solution, files, nearest_etf
from etfopt.experiments.data import load_images
from etfopt.experiments.settings import HEADS, DataConfig, HeadConfig, TrainConfig, TrainingConfig
from etfopt.experiments.studies.spread import Spread, plot_cosines, plot_curves, summary
from etfopt.experiments.training.folder import refuse_occupied, refuse_other_settings
from etfopt.experiments.training.train import RunResult, make_folder, train

__all__ = ["DemoResult", "plan", "run_demo"]

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found, and the files it wrote.

    Attributes
    ----------
    summary : dict
        By head, the spread of each quantity over seeds.
    nearest : Solution
        For the class means of the first nearest-ETF run.
    files : tuple of Path
        What was written.
    """

    summary: dict[str, dict[str, Spread]]
    nearest: Solution
    files: tuple[Path, ...]


def plan(epochs: int, seeds: Sequence[int] = SEEDS, data: str = "digits") -> list[TrainConfig]:
    """Return the configurations: every head with every seed, alike in all else.

    Parameters
    ----------
    epochs : int
        Of every run.
    seeds : sequence of int
        Of every head.
    data : str
        Name of the data.

    Returns
    -------
    list of TrainConfig
        Head by head.
    """
    base = TrainConfig(data=DataConfig(name=data), training=TrainingConfig(epochs=epochs))
    return [base.model_copy(update={"head": HeadConfig(name=head), "seed": seed}) for seed in seeds for head in HEADS]


def run_demo(
    configs: Sequence[TrainConfig],
    path: Path,
    on_epoch: Callable[[], None] | None = None,
    *,
    overwrite: bool = False,
) -> DemoResult:
    """Train every configuration, certify the ETF nearest to trained class means, and write the results into a folder.

    Parameters
    ----------
    configs : sequence of TrainConfig
        As `plan` returns them.
    path : Path
        Folder for everything that is written: a folder a run, ``summary.json``, ``curves.png``, ``cosines.png``.
    on_epoch : callable, optional
        Called after every epoch of every run.
    overwrite : bool
        Whether earlier runs in the folder are replaced. Without it, runs of the same settings are continued, and those
        that are finished are taken as they are.

    Returns
    -------
    DemoResult
        For the table that is printed.

    Raises
    ------
    InputError
        If the folder holds runs of other settings and `overwrite` is False, or files of these names that are of no
        demonstration.
    """
    runs = {path / f"{config.head.name}-seed{config.seed}": config for config in configs}
    curves, matrices, numbers = path / "curves.png", path / "cosines.png", path / "summary.json"
    heads = {config.head.name for config in configs}
    files.refuse_occupied([numbers, curves, matrices], heads, "an earlier demonstration", overwrite=True)
    for folder, config in runs.items():  # before the first is trained
        refuse_occupied(folder, overwrite=True)
        if not overwrite:
            refuse_other_settings(folder, config)
    make_folder(path)
    images = {data: load_images(data) for data in {config.data for config in configs}}
    results = []
    for folder, config in runs.items():
        data = images[config.data]
        result = train(config, folder, images=data, on_epoch=on_epoch, overwrite=overwrite, resume=not overwrite)
        results.append(result)
        for _ in range(config.training.epochs - result.trained):
            if on_epoch:
                on_epoch()  # for an epoch that was trained before
    table = summary(results)
    rows = {head: {name: asdict(spread) for name, spread in row.items()} for head, row in table.items()}
    with files.whole(numbers) as part:  # first: the figures are known by it
        part.write_text(files.strict_json(rows))
    plot_curves(results, curves)
    plot_cosines(results, matrices)
    return DemoResult(table, _certified(results), (numbers, curves, matrices))


def _certified(results: Sequence[RunResult]) -> Solution:
    """Solve for the ETF nearest to the last class means of the first nearest-ETF run, scaled to norm 1."""
    shown = next((run for run in results if run.config.head.name == "nearest"), results[0])
    H = shown.class_means[-1]
    return nearest_etf(H / np.linalg.norm(H))
