"""The demonstration: three heads, three seeds, one table, one certified ETF, two figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from etfopt import Solution, nearest_etf
from etfopt.experiments.config import HEADS, DataConfig, HeadConfig, TrainConfig, TrainingConfig
from etfopt.experiments.data import load_images
from etfopt.experiments.report import Spread, plot_cosines, plot_curves, summary
from etfopt.experiments.train import RunResult, make_folder, train
from etfopt.files import strict_json, whole

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
    base = TrainConfig(data=DataConfig(data), training=TrainingConfig(epochs))
    return [replace(base, head=HeadConfig(head), seed=seed) for seed in seeds for head in HEADS]


def run_demo(configs: Sequence[TrainConfig], path: Path, on_epoch: Callable[[], None] | None = None) -> DemoResult:
    """Train every configuration, certify the ETF nearest to trained class means, and write the results into a folder.

    Parameters
    ----------
    configs : sequence of TrainConfig
        As `plan` returns them.
    path : Path
        Folder for everything that is written: a folder a run, ``summary.json``, ``curves.png``, ``cosines.png``.
    on_epoch : callable, optional
        Called after every epoch of every run.

    Returns
    -------
    DemoResult
        For the table that is printed.
    """
    make_folder(path)
    images = {data: load_images(data) for data in {config.data for config in configs}}
    results = [
        train(config, path / f"{config.head.name}-seed{config.seed}", images=images[config.data], on_epoch=on_epoch)
        for config in configs
    ]
    table = summary(results)
    curves, matrices, numbers = path / "curves.png", path / "cosines.png", path / "summary.json"
    plot_curves(results, curves)
    plot_cosines(results, matrices)
    with whole(numbers) as part:
        part.write_text(strict_json({head: {k: asdict(v) for k, v in row.items()} for head, row in table.items()}))
    return DemoResult(table, _certified(results), (numbers, curves, matrices))


def _certified(results: Sequence[RunResult]) -> Solution:
    """Solve for the ETF nearest to the last class means of the first nearest-ETF run, scaled to norm 1."""
    shown = next((run for run in results if run.config.head.name == "nearest"), results[0])
    H = shown.class_means[-1]
    return nearest_etf(H / np.linalg.norm(H))
