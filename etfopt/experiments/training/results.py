"""Results of a run, from memory or from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.training._means import Means, read_means
from etfopt.experiments.training._recorder import COST, LINES, MARGINS, MEANS_BY_EPOCH
from etfopt.experiments.training._records import Record, config_of, read_lines
from etfopt.files import load_matrix

__all__ = ["RunResult", "load_run"]


@dataclass(repr=False)
class RunResult:
    """Results of a run.

    Attributes
    ----------
    config : TrainConfig
    history : list of dict
        One record an epoch, epoch 0 before any training: ``epoch`` and ``train_*``, ``test_*`` measures.
    class_means : ndarray, shape (epochs + 1, d, C)
        Centred class means of the training split.
    step_ms : float
        Median milliseconds of a training step (forward, backward, update), the first ones left out.
    step_bytes : float
        Peak memory of the tensors made in a step; NaN if the run has no second step.
    path : Path
        Folder of the run.
    trained : int
        Number of epochs that the call which returned this has trained.
    """

    config: TrainConfig
    history: list[Record]
    class_means: Means
    step_ms: float
    step_bytes: float
    path: Path
    trained: int = 0

    def __repr__(self) -> str:
        epochs = f"{len(self.history) - 1} of {self.config.epochs} epochs" if self.history else "not begun"
        found = f", test accuracy {self.history[-1]['test_accuracy']:.4g}" if self.history else ""
        return f"RunResult({self.config.label}, {epochs}{found}, {self.path})"

    def epochs_to(self, value: float, measure: str = "train_accuracy") -> int | None:
        """Return the first epoch after which a measure is at least `value`; None if there is none.

        ``epochs_to(0.99)`` asks for a training accuracy, ``epochs_to(1.0, "train_cosine_margin")`` for a margin.

        Parameters
        ----------
        value : float
            The level to reach.
        measure : str
            A key of the history.

        Returns
        -------
        int or None
            Counted from 1; 0 is the untrained network.
        """
        reached = (int(record["epoch"]) for record in self.history if record[measure] >= value)
        return next(reached, None)

    @property
    def finished(self) -> bool:
        """Whether all epochs of the configuration were trained."""
        return bool(self.history) and self.history[-1]["epoch"] == self.config.epochs

    def margins(self, split: str = "train") -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the sorted cosine margins after the last epoch, for the curve P_CM.

        Parameters
        ----------
        split : "train" or "test"
            The split whose samples count.

        Returns
        -------
        ndarray, shape (n,), float64
            Ascending.

        Raises
        ------
        InputError
            If the run did not come to its end.
        """
        return np.asarray(load_matrix(self.path / MARGINS, split))


def load_run(path: Path) -> RunResult:
    """Read a run from its folder, up to the last epoch that was recorded.

    Parameters
    ----------
    path : Path
        Folder of the run.

    Returns
    -------
    RunResult
        The results so far; the run may still be running, or stopped.

    Raises
    ------
    InputError
        If the folder is of no run, or a file of it is missing, damaged or of another version.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from etfopt.experiments.training.results import load_run
    >>> load_run(Path(tempfile.mkdtemp()))
    Traceback (most recent call last):
        ...
    etfopt.errors.InputError: ...
    """
    config, lines = config_of(path), read_lines(path / LINES)
    if lines and (missing := [key for key in COST if any(key not in line for line in lines)]):
        raise InputError(f"{path / LINES}: is damaged: a line has no {missing[0]}")
    history = [{key: value for key, value in line.items() if key not in COST} for line in lines]
    steps = [line["step_ms"] for line in lines]
    step_ms = float(np.nanmedian(steps)) if not np.all(np.isnan(steps)) else float("nan")
    step_bytes = lines[-1]["step_bytes"] if lines else float("nan")
    return RunResult(config, history, read_means(path / MEANS_BY_EPOCH, len(history)), step_ms, step_bytes, path)
