"""One training run: Lightning fits a classifier, and what it measured after every epoch is written down."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.data import Images, load_images
from etfopt.experiments.data.sessions import sessions_of
from etfopt.experiments.networks.backbones import build_backbone
from etfopt.experiments.networks.heads import build_head
from etfopt.experiments.networks.optimizers import build_optimizer, build_schedule, orthogonal_
from etfopt.experiments.settings import TrainConfig, machine_of
from etfopt.experiments.training._checkpoints import EpochCheckpoint, Identity
from etfopt.experiments.training._fitting import fit_sessions
from etfopt.experiments.training._means import read_means
from etfopt.experiments.training._random_states import RandomStates, seeded
from etfopt.experiments.training._recorder import MEANS_BY_EPOCH, Recorder
from etfopt.experiments.training._records import config_of, locked, refuse_locked
from etfopt.experiments.training._run_folder import Start, begin, finish, kept, refuse_occupied, resume_from
from etfopt.experiments.training._sessions import last_layer
from etfopt.experiments.training._termination import heeding_sigterm
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.loggers import RunLogger
from etfopt.experiments.training.machine import build_trainer, process_rank, quiet_lightning, use_threads
from etfopt.experiments.training.progress import Reporter, RunProgress
from etfopt.experiments.training.results import RunResult, load_run
from etfopt.files import StorageError, make_folder

__all__ = ["RunProgress", "RunResult", "kept", "resume", "train"]

LOG = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    path: Path,
    *,
    images: Images | None = None,
    backbone: nn.Module | None = None,
    on_epoch: Callable[[], None] | None = None,
    on_progress: Callable[[RunProgress], None] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    from_epoch: int | None = None,
    logger: str = "none",
    **machine: Any,
) -> RunResult:
    """Train one network and write configuration, measures, class means and checkpoints into a folder.

    Parameters
    ----------
    config : TrainConfig
    path : Path
        Folder of the run, made if missing.
    images : Images, optional
        The data, if they are at hand; otherwise they are loaded by name.
    backbone : nn.Module, optional
        For ``config.backbone.name = "custom"``: any module with features of dimension ``config.backbone.dim``.
    on_epoch : callable, optional
        Called after every epoch.
    on_progress : callable, optional
        Called with a `RunProgress` after every step and every epoch.
    overwrite : bool
        Whether the files of an earlier run in the folder are removed. Without it, a folder with a run of which an
        epoch is finished is refused. Files that are of no run are never removed.
    resume : bool
        Continue from the last checkpoint in the folder, if there is one. On the CPU with one thread the weights are
        those of a run that was never interrupted, to the last bit. A finished run is returned as it is. The folder's
        run may have been planned for another number of epochs, unless its schedule depends on that number; see
        `TrainConfig.prolonged`.
    from_epoch : int, optional
        Resume from the checkpoint of this epoch; the last two are kept.
    logger : str
        Where the measures go besides the folder: "none", "csv", "tensorboard", "wandb", "mlflow", or the import path
        of a Lightning logger, ``package.module:Class``. A resumed run continues its log. See `RunLogger`.
    **machine
        Accelerator, devices, strategy, precision, threads; see `Machine`.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the folder cannot be used, holds an earlier run or files of these names that are of no run, or another
        process is at work on it; if the machine has not what is asked for; if a run or its checkpoint cannot be
        resumed, with the reason.
    ConvergenceError
        If the network diverges, naming epoch, step, batch and samples.
    StorageError
        If a file cannot be written, since the disk is full, say.

    Warns
    -----
    UserWarning
        If the loss is dot-regression and the temperature is above 1, where collapse is no minimiser.

    Notes
    -----
    Whatever ends a run early, Ctrl-C, SIGTERM, a crash or one of these errors, the measures of finished epochs and
    the last two checkpoints are kept whole.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from etfopt.experiments.settings import TrainConfig
    >>> from etfopt.experiments.training.train import train
    >>> config = TrainConfig().with_settings({"training.epochs": 1, "backbone.width": 16, "backbone.dim": 12})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = train(config, Path(folder) / "run")
    >>> [record["epoch"] for record in result.history]
    [0, 1]
    """
    computer, rank, log = machine_of(machine), process_rank(), RunLogger(logger, path, config)
    _warn_of_cone(config)
    if resume and overwrite:
        raise InputError("resume = True and overwrite = True exclude each other: continue the run, or replace it")
    if rank == 0 and not resume:
        refuse_locked(path)
        refuse_occupied(path, overwrite=overwrite)  # before data are read, which may take long
    with quiet_lightning():
        build_trainer(computer, config.training, ())  # refused before data are read
    images = load_images(config.data) if images is None else images
    if config.sessions.count and computer.devices > 1:
        raise InputError(f"devices = {computer.devices}: a run in sessions is for one device; leave devices out")
    epochs, sessions = config.epochs, sessions_of(images, config)
    model = _build(config, images, backbone)  # refused before anything changes
    identity = Identity(config.course(), computer.devices, computer.precision)
    with ExitStack() as stack:
        heed = stack.enter_context(heeding_sigterm())
        for context in (quiet_lightning(), use_threads(computer.threads)):
            stack.enter_context(context)
        recorder = Recorder(path, on_epoch, log)
        callbacks = [heed, RandomStates(), recorder, EpochCheckpoint(path / "checkpoints", identity)]
        if on_progress is not None:
            callbacks.append(Reporter(recorder, on_progress, epochs))
        trainer = build_trainer(computer, config.training, callbacks)
        if rank == 0:
            make_folder(path)
            stack.enter_context(locked(path))
            if not resume:
                refuse_occupied(path, overwrite=overwrite)  # again: another process may have come first
        start = resume_from(path, config, identity, from_epoch) if resume else Start(None, 0)
        if start.epoch == epochs:
            if rank == 0:
                finish(path, config)
            return load_run(path)
        if rank == 0:
            begin(path, config, start, computer, model.head_bytes)
        LOG.info("%s: %s, epochs %d to %d, digest %s", path, config, start.epoch + 1, epochs, config.digest())
        with seeded(config.seed, rank), _ending(path, recorder, rank):
            fit_sessions(trainer, model, sessions, start)
            means = read_means(path / MEANS_BY_EPOCH, epochs + 1)
            if rank == 0:
                recorder.write_results(means[-1])
    cost = recorder.step_ms(), recorder.step_bytes
    return RunResult(config, recorder.history, means, *cost, path, epochs - start.epoch)


def _warn_of_cone(config: TrainConfig) -> None:
    tau = config.head.temperature
    if config.loss.name == "dot-regression" and not isinstance(tau, str) and tau > 1:
        warnings.warn(
            f"head.temperature = {tau:g} with dot-regression: the loss is zero on a cone around each row, at cosine "
            f"1/{tau:g}, so the network does not collapse to the ETF; use head.temperature = 1",
            stacklevel=3,
        )


@contextmanager
def _ending(path: Path, recorder: Recorder, rank: int) -> Iterator[None]:
    """Leave the history of the finished epochs where a run ends early, and say in its errors what is kept."""
    status = "failed"
    try:
        yield
        status = "success"
    except BaseException as error:
        if rank == 0:
            with suppress(StorageError):
                recorder.write_history()
        if isinstance(error, StorageError):
            raise StorageError(f"{error}. {kept(path)}") from error
        if isinstance(error, ConvergenceError):
            again = "A resumed run would diverge again: train with other settings, in another folder"
            raise ConvergenceError(f"{error}. {kept(path, again)}") from error
        raise
    finally:
        recorder.close(status)


def resume(path: Path, *, epochs: int | None = None, **options: Any) -> RunResult:
    """Continue the run in a folder with its own settings, also to another number of epochs.

    A run of 10 epochs that is continued to 20 equals a run of 20 epochs, to the last bit on the CPU with one thread.
    Its ``config.json`` then says 20 epochs, and ``environment.json`` has an entry for each start, with the number of
    epochs that was planned then.

    Parameters
    ----------
    path : Path
        Folder of the run.
    epochs : int, optional
        Continue to this number of epochs. Default: the number that the run was planned for.
    **options : object
        Other arguments of `train`.

    Returns
    -------
    RunResult
        As `train` returns it.

    Raises
    ------
    InputError
        If the folder holds no run; if `epochs` is given and the schedule depends on the number of epochs, or as many
        are finished; or as `train` says.
    """
    config = config_of(path)
    return train(config if epochs is None else config.prolonged(epochs), path, resume=True, **options)


def _build(config: TrainConfig, images: Images, backbone: nn.Module | None = None) -> Classifier:
    """Build backbone, then head, from the seed alone, so that the backbone is the same under every head."""
    config.check_room(images.num_classes)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        backbone = build_backbone(config.backbone, images.train[0:2][0], len(images.train), backbone)
        if config.optimizer.name == "agd":
            orthogonal_(backbone)
        C = images.num_classes
        base, capacity = config.sessions.base(C), C if config.head.growth == "held" else None
        # of sessions, each counts its own classes alike
        counts = torch.ones(base) if config.sessions.count else torch.bincount(images.train.labels, minlength=C)
        head = build_head(config.head, config.backbone.feature_dim, base, config.seed, counts, capacity)
        if config.optimizer.name == "agd":
            for rows in head.parameters():
                if rows.ndim > 1:  # AGD refuses others
                    nn.init.orthogonal_(rows)
    if config.sessions.backbone == "last-layer":
        last_layer(backbone)
    model = Classifier(backbone, head, config, counts)
    # what these refuse, they refuse before anything is written
    build_schedule(build_optimizer(model, config.optimizer), config.schedule, config.training.epochs)
    return model
