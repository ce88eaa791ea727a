"""A run's measures in a Lightning logger: CSV, TensorBoard, Weights & Biases, MLflow, or a class of your own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from etfopt._atomic import storage_error
from etfopt.errors import InputError, MissingExtraError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.settings.names import LOGGERS
from etfopt.experiments.training._records import Record

__all__ = ["RunLogger"]

NEEDS = {"tensorboard": ("tensorboardX", "tensorboard"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
"""Packages that Lightning needs for a logger, of which one is enough."""

FILES = ("csv/metrics.csv", "csv/hparams.yaml", "tensorboard/events.out.tfevents.*", "tensorboard/hparams.yaml")
"""Files that the local loggers leave in the folder of a run."""


class RunLogger:
    """Passes the measures of a run to a Lightning logger, one record an epoch. A resumed run continues its log.

    Parameters
    ----------
    name : str
        "none" logs nothing. "csv" and "tensorboard" write into a folder of this name in the folder of the run,
        "wandb" and "mlflow" go where their own environment variables say. Anything else is the import path of a
        Lightning logger, ``package.module:Class``, which is called with ``save_dir=FOLDER``.
    folder : Path
        Folder of the run.
    config : TrainConfig
        Logged as the hyperparameters.

    Attributes
    ----------
    version : str or None
        How the logger calls this run, once it has begun: Weights & Biases and MLflow find it again by this.

    Raises
    ------
    InputError
        If there is no such logger.
    MissingExtraError
        If the package that it needs is not installed.

    Notes
    -----
    TensorBoard's writer waits for ever when the disk is full; "csv" stops the run with an error.
    """

    def __init__(self, name: str, folder: Path, config: TrainConfig) -> None:
        self.name, self.folder, self.config = LOGGERS.checked(name), folder, config
        self.version: str | None = None
        self._logger: Logger | None = None
        packages = NEEDS.get(name, ())
        if packages and not any(map(find_spec, packages)):
            raise MissingExtraError(
                f"logger = {name!r} needs {packages[0]}; run: pip install {packages[0]}", name=packages[0]
            )
        if name not in LOGGERS:
            try:
                inspect.signature(LOGGERS.load(name)).bind(save_dir="")
            except TypeError as error:
                raise InputError(f"logger = {name!r} must be a class that takes save_dir=FOLDER: {error}") from error

    def log(self, records: Sequence[Record]) -> None:
        """Log the last of the records."""
        if self.name == "none":
            return
        try:
            first = len(records) - 1
            if self._logger is None:
                self._logger = self._opened(first)
                first = 0 if self.name == "csv" else first  # Lightning starts a new file
            for record in records[first:]:
                values = {name.replace("_", "/", 1): value for name, value in record.items() if name != "epoch"}
                self._logger.log_metrics(values, step=int(record["epoch"]))
        except OSError as error:
            raise storage_error(self.folder, error) from error

    def _opened(self, epoch: int) -> Logger:
        """Return the logger of a run that starts, or resumes, with an epoch."""
        for name in FILES[:2]:
            (self.folder / name).unlink(missing_ok=True)
        here = {"save_dir": str(self.folder), "name": "", "version": self.name}
        cloud = {"project": "etfopt", "id": self.version, "resume": "allow", "save_dir": str(self.folder)}
        options: dict[str, dict[str, Any]] = {
            "csv": {**here, "flush_logs_every_n_steps": 1},
            # purging hides this epoch and later ones in the file of an earlier start. Files are named by the second:
            # without the suffix, a run that resumes at once would overwrite that file
            "tensorboard": {
                **here,
                "default_hp_metric": False,
                "purge_step": epoch,
                "filename_suffix": f".from-{epoch}",
            },
            "wandb": {**cloud, "name": self.config.label},
            "mlflow": {
                "experiment_name": "etfopt",
                "run_name": self.config.label,
                "save_dir": str(self.folder / "mlruns"),
                "run_id": self.version,
            },
        }
        logger: Logger = LOGGERS.load(self.name)(**options.get(self.name, {"save_dir": str(self.folder)}))
        logger.log_hyperparams(self.config.to_dict())
        self.version = None if logger.version is None else str(logger.version)
        return logger

    def close(self, status: str) -> None:
        """Finish the log."""
        if self._logger is not None:
            self._logger.finalize(status)
