"""Small runs, and callbacks that stop them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from etfopt.experiments.settings import TrainConfig

SMALL = {"backbone.width": 16, "backbone.dim": 12, "training.batch_size": 256}


def small(epochs: int = 2, **settings: object) -> TrainConfig:
    """A run of a few seconds; settings have two underscores for a dot."""
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return TrainConfig().with_settings({**SMALL, "training.epochs": epochs, **given})


class Stopped(Exception):
    """Raised where a test stops a run."""


def stop_after(epochs: int) -> Callable[[], None]:
    """A callback that stops a run in the epoch after so many, before its checkpoint."""
    calls: list[None] = []

    def count() -> None:
        calls.append(None)
        if len(calls) > epochs:
            raise Stopped

    return count


def blobs(wrong: bool) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Three classes of features, data of one's own; with `wrong`, the labels of the test split are those of others."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    rows = np.eye(3, 6)[labels] + generator.normal(size=(120, 6))
    return (rows[:90], labels[:90]), (rows[90:], (labels[90:] + wrong) % 3)
