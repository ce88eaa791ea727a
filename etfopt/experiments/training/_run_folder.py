"""The folder of a run: which files it holds, which may be removed, and where a resumed run starts."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etfopt._atomic import part_of
from etfopt.errors import InputError
from etfopt.experiments.settings import Machine, TrainConfig
from etfopt.experiments.training._checkpoints import Identity, checkpoints, choose, files_after, load, prune
from etfopt.experiments.training._environment import environment
from etfopt.experiments.training._means import read_means
from etfopt.experiments.training._recorder import HISTORY, LINES, MARGINS, MEANS, MEANS_BY_EPOCH, Recorder
from etfopt.experiments.training._records import (
    CONFIG,
    LARGEST,
    config_of,
    read_json,
    read_lines,
    write_config,
    write_json,
)
from etfopt.experiments.training.loggers import FILES as LOGS
from etfopt.files._text import parse_json, read_bounded

ENVIRONMENT = "environment.json"
RESULTS = (HISTORY, MEANS, MARGINS)
CHECKPOINTS = ("checkpoints/epoch-*.json", "checkpoints/epoch-*.ckpt")  # removed in this order
# the configuration marks a run, and is removed last
PATTERNS = (*RESULTS, LINES, MEANS_BY_EPOCH, ENVIRONMENT, *CHECKPOINTS, *LOGS, CONFIG)


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes
    ----------
    checkpoint : Path or None
        The checkpoint to load; None for a new run.
    epoch : int
        Number of finished epochs.
    """

    checkpoint: Path | None
    epoch: int


def refuse_occupied(path: Path, *, overwrite: bool) -> None:
    """Refuse a folder in which a new run would remove files that you may still need. Changes nothing."""
    there = [str(file.relative_to(path)) for file in _files(path)]
    if there and not _is_run(path / CONFIG):
        raise InputError(f"{path}: holds {', '.join(there)}, and not of an earlier run; choose another folder")
    if there and not overwrite and (epochs := _finished_epochs(path)):
        raise InputError(
            f"{path}: holds an earlier run, {_described(path)}, with {epochs} finished epoch{'s' * (epochs > 1)}; "
            f"choose another folder with --out, continue that run with "
            f"--resume {shlex.quote(str(path))}, or replace it with --overwrite"
        )


def refuse_other_settings(path: Path, config: TrainConfig) -> None:
    """Refuse to resume a run in a folder that holds a run with other settings than the number of epochs."""
    if _files(path) and config_of(path).course() != config.course():
        raise InputError(
            f"{path}: is a run of another configuration, {_described(path)}; choose another folder, or replace "
            "it with --overwrite"
        )


def _finished_epochs(path: Path) -> int:
    """Return how many finished epochs would be lost with the folder."""
    ends = checkpoints(path / "checkpoints")
    if ends or any((path / name).exists() for name in (MEANS, MARGINS)):
        return max([*ends, _recorded(path), 1])
    # an epoch is finished when its checkpoint is written, after its line
    return max(0, _recorded(path) - 1)


def _recorded(path: Path) -> int:
    """Return the last recorded epoch; an unreadable file counts as needed."""
    try:
        lines = read_lines(path / LINES) if (path / LINES).exists() else []
        return int(lines[-1]["epoch"]) if lines else 0
    except (AttributeError, KeyError, TypeError, ValueError):
        return 2


def _described(path: Path) -> str:
    try:
        config = config_of(path)
    except InputError:
        return "written by another version of etfopt"
    return f"{config.data.name}, head {config.head.name}, seed {config.seed}, {config.epochs} epochs planned"


def begin(path: Path, config: TrainConfig, start: Start, machine: Machine, head_bytes: int) -> None:
    """Prepare the folder of a run that starts or resumes; the memory of its head is written down with the start."""
    starts = read_starts(path) if start.epoch else []
    try:
        for file in [*_torn(path), *(_ahead(path, start.epoch) if start.epoch else _files(path))]:
            file.unlink()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be cleared of the earlier run: {error.strerror}; remove it yourself"
        ) from error
    if not start.epoch or config_of(path).training.epochs != config.training.epochs:
        write_config(path, config)
    planned = {"epoch": start.epoch, "epochs": config.epochs, "seed": config.seed}
    here = {**planned, "head_bytes": head_bytes, **asdict(machine), **environment()}
    write_json(path / ENVIRONMENT, {"starts": [*starts, here]})


def read_starts(path: Path) -> list[dict[str, Any]]:
    """Read the settings and versions of each start of a run."""
    file = path / ENVIRONMENT
    starts = read_json(file).get("starts") if file.exists() else []
    if not isinstance(starts, list) or not all(isinstance(s, dict) and _is_git(s.get("git")) for s in starts):
        raise InputError(f"{file}: is damaged: it holds no list of starts; remove it to go on without")
    return starts


def _is_git(value: object) -> bool:
    if not isinstance(value, dict):
        return value is None
    return isinstance(value.get("revision"), str) and isinstance(value.get("dirty"), bool)


def resume_from(path: Path, config: TrainConfig, identity: Identity, from_epoch: int | None) -> Start:
    """Return where a run resumes; in a folder without files of a run, it starts."""
    if not _files(path):
        return Start(None, 0)
    refuse_other_settings(path, config)
    checkpoint = choose(path / "checkpoints", identity, from_epoch)
    if checkpoint is None and (epochs := _finished_epochs(path)):
        if epochs == config.epochs and all((path / name).exists() for name in RESULTS):
            return Start(None, epochs)
        raise InputError(
            f"{path}: holds the records of {epochs} finished epoch{'s' * (epochs > 1)} and no checkpoint to continue "
            "from, which is a pair of files, epoch-N.ckpt and epoch-N.json; put them back, or train again in another "
            "folder. Checkpoints of etfopt 0.1 are single files: only etfopt 0.1 continues from them"
        )
    epoch = next((e for e, file in checkpoints(path / "checkpoints").items() if file == checkpoint), 0)
    if epoch >= config.training.epochs != config_of(path).training.epochs:
        message = f"{path}: {epoch} epochs are finished; epochs = {config.training.epochs} leaves none to train"
        raise InputError(message, "epochs", config.training.epochs, f"pass a number above {epoch}")
    if epoch:
        read_means(path / MEANS_BY_EPOCH, epoch + 1)
    return Start(checkpoint, epoch)


def finish(path: Path, config: TrainConfig) -> None:
    """Write the missing results of a finished run from its last checkpoint."""
    prune(path / "checkpoints")
    if all((path / name).exists() for name in RESULTS):
        return
    recorder = Recorder(path, None)
    recorder.load_state_dict(load(checkpoints(path / "checkpoints")[config.epochs])["callbacks"]["Recorder"])
    recorder.write_lines()
    recorder.write_results(read_means(path / MEANS_BY_EPOCH, config.epochs + 1)[-1])


def kept(path: Path, advice: str = "") -> str:
    """Say what is kept of a run that has stopped early, and what to do.

    Parameters
    ----------
    path : Path
        Folder of the run.
    advice : str
        What to do. By default, the command that resumes the run.

    Returns
    -------
    str
        A sentence for the user.
    """
    if not (path / CONFIG).exists():
        return f"Nothing was written to {path}/. To start again: the same command"
    epoch = max(checkpoints(path / "checkpoints"), default=0)
    last = f", with the checkpoint of epoch {epoch}" if epoch else "; no epoch was finished"
    return f"Kept: {path}/{last}. {advice or f'To go on: etfopt train --resume {shlex.quote(str(path))}'}"


def is_empty(path: Path) -> bool:
    """Return whether a folder is missing or holds no file of a run."""
    return not _files(path)


def _files(path: Path) -> list[Path]:
    return [file for pattern in PATTERNS for file in sorted(path.glob(pattern))]


def _ahead(path: Path, epoch: int) -> list[Path]:
    """Return the files that a run must not find when it resumes from an epoch: later checkpoints, and results."""
    return [*files_after(path / "checkpoints", epoch), *(path / name for name in RESULTS if (path / name).exists())]


def _torn(path: Path) -> list[Path]:
    """Return files that were being written when a process was killed."""
    return [file for pattern in PATTERNS for file in path.glob(str(part_of(Path(pattern))))]


def _is_run(config: Path) -> bool:
    """Whether a file is the configuration of a run, of whatever version."""
    try:
        record = parse_json(read_bounded(config, LARGEST))
    except ValueError:  # InputError is one
        return False
    return isinstance(record, dict) and isinstance(record.get("schema"), int) and record.keys() == {"schema", "config"}
