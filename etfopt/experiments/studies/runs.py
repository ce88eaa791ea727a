"""All runs of a study, some at a time: finished runs are skipped, interrupted ones resumed."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from etfopt._processes import end_with_parent, on_sigterm, sigint_blocked
from etfopt.errors import ConvergenceError, EtfoptError, InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.settings import machine_of, require_processors
from etfopt.experiments.studies._progress import Progress, State, progress, record_divergence, save_study
from etfopt.experiments.studies.plan import Planned, Study
from etfopt.experiments.training.train import train
from etfopt.files import StorageError

__all__ = ["Outcome", "run_study"]

LOG = logging.getLogger(__name__)

POLL_SECONDS, GRACE_SECONDS = 0.2, 30.0


@dataclass(frozen=True)
class Outcome:
    """Result of a run.

    Attributes
    ----------
    run : Planned
    error : EtfoptError, optional
        Why the run failed, if it did.
    """

    run: Planned
    error: EtfoptError | None = None


def run_study(
    study: Study,
    folder: Path,
    *,
    jobs: int = 1,
    on_epoch: Callable[[], None] | None = None,
    on_run: Callable[[Outcome], None] | None = None,
    logger: str = "none",
    overwrite: bool = False,
    **machine: Any,
) -> list[Outcome]:
    """Train the unfinished runs of a study.

    Parameters
    ----------
    study : Study
    folder : Path
        Folder of the study, made if missing; each run has a folder in it.
    jobs : int
        Runs at a time. With more than one, each has a process of its own with one thread; the number of processors
        is a good value.
    on_epoch, on_run : callable, optional
        Called after every epoch of every run, and when a run has ended.
    logger : str
        Logger of every run; see `train`.
    overwrite : bool
        Whether all runs are trained again, and earlier ones in their folders are replaced.
    **machine
        Accelerator, devices, precision, threads; see `Machine`.

    Returns
    -------
    list of Outcome
        One for each run that was trained now, in the order in which they ended. If a run fails, the others are still
        trained; if it diverges, it is recorded and not tried again.

    Raises
    ------
    InputError
        If a folder holds a run with another configuration, or data cannot be read. Nothing is trained then.
    StorageError
        If a file cannot be written. The study stops, because the other runs could not write either.

    Notes
    -----
    If anything stops a study early, Ctrl-C and SIGTERM included, every finished epoch is kept. The same call resumes.
    """
    require_processors(jobs, "jobs")
    computer = machine_of(machine)
    if jobs > 1 and (computer.threads > 1 or computer.devices > 1):
        raise InputError(f"jobs = {jobs} goes with one thread and one device a run")
    if overwrite:
        todo = [Progress(run, State.NEW, 0) for run in study.runs()]
    else:
        todo = [p for p in progress(folder, study.runs()) if p.state in (State.NEW, State.STARTED)]
    _check_data(todo)
    save_study(folder, study)
    options = {**machine, "logger": logger, "overwrite": overwrite}
    start = functools.partial(_at_once, jobs=jobs) if jobs > 1 else _in_turn
    ended = []
    with on_sigterm(_leave), closing(start(todo, folder, options, on_epoch)) as outcomes:
        for outcome in outcomes:
            LOG.info("%s: %s", outcome.run.folder, outcome.error or "trained")
            if on_run:
                on_run(outcome)
            if isinstance(outcome.error, StorageError):
                raise outcome.error
            ended.append(outcome)
    return ended


def _leave() -> None:
    raise SystemExit(128 + signal.SIGTERM)


@functools.lru_cache(maxsize=1)
def _images(data: Any) -> Any:
    """Return the data of a configuration; most studies have one, and it is read once."""
    return load_images(data)


def _check_data(todo: Sequence[Progress]) -> None:
    """Read all data once and see whether d is large enough for C, before the first run."""
    for config in {p.run.variant: p.run.config for p in todo}.values():
        config.check_room(_images(config.data).num_classes)


def _train(run: Planned, folder: Path, options: dict[str, Any], on_epoch: Callable[[], None] | None) -> Outcome:
    """Train one run, or go on with it."""
    path = folder / run.folder
    try:
        resume = not options["overwrite"]
        train(run.config, path, images=_images(run.config.data), resume=resume, on_epoch=on_epoch, **options)
    except ConvergenceError as error:
        record_divergence(path, run.config, str(error))
        return Outcome(run, ConvergenceError(str(error)))
    except EtfoptError as error:
        return Outcome(run, error)
    return Outcome(run)


# --- one after the other -------------------------------------------------------------------------------------------


def _in_turn(
    todo: Sequence[Progress], folder: Path, options: dict[str, Any], on_epoch: Callable[[], None] | None
) -> Generator[Outcome, None, None]:
    for p in todo:
        yield _train(p.run, folder, options, on_epoch)


# --- in processes of their own -------------------------------------------------------------------------------------

_ticks: Any = None  # of a worker: where it says that an epoch is done


def _begin_worker(ticks: Any) -> None:
    global _ticks  # noqa: PLW0603 - the one way in which a pool hands a queue to its processes
    _ticks = ticks
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first process passes it on


def _train_in_worker(run: Planned, folder: Path, options: dict[str, Any]) -> Outcome:
    try:
        return _train(run, folder, options, lambda: _ticks.put(None))
    except (KeyboardInterrupt, SystemExit):
        # the run is closed; this process must not ask for the next one, since another that was stopped while it
        # asked may have taken the pool's lock with it
        os._exit(128 + signal.SIGTERM)


def _at_once(
    todo: Sequence[Progress], folder: Path, options: dict[str, Any], on_epoch: Callable[[], None] | None, jobs: int
) -> Generator[Outcome, None, None]:
    context = multiprocessing.get_context("spawn")
    ticks, others = context.SimpleQueue(), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker, initargs=(ticks,))
    waiting, whole = list(todo), False
    running: set[Future[Outcome]] = set()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:  # no more: what the pool has taken up cannot be cancelled
                with sigint_blocked():  # the pool starts a process when it is handed work
                    running.add(pool.submit(_train_in_worker, waiting.pop(0).run, folder, options))
            done, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
            while not ticks.empty():
                ticks.get()
                if on_epoch:
                    on_epoch()
            yield from (future.result() for future in done)
        whole = True
    except BrokenProcessPool as error:
        raise EtfoptError(
            "a process of the study was killed, perhaps for lack of memory; finished epochs are kept: try fewer jobs"
        ) from error
    finally:
        if not whole:
            _stop(set(multiprocessing.active_children()) - others)
        pool.shutdown(cancel_futures=True)
        ticks.close()


def _stop(processes: set[BaseProcess]) -> None:
    """Tell processes to end, which a run does between two batches, and end those that do not: no run is lost by it."""
    for process in processes:
        process.terminate()
    deadline, left = time.monotonic() + GRACE_SECONDS, {process.sentinel: process for process in processes}
    while left and time.monotonic() < deadline:
        ended = wait_for(list(left), deadline - time.monotonic())
        left = {sentinel: process for sentinel, process in left.items() if sentinel not in ended}
    for process in left.values():
        process.kill()
