"""The folder of a study: its plan, and the progress of each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies.plan import Planned, Study
from etfopt.experiments.training._recorder import LINES
from etfopt.experiments.training._records import CONFIG, config_of, read_json, read_lines, write_json
from etfopt.experiments.training._run_folder import RESULTS, is_empty
from etfopt.files import make_folder

STUDY, DIVERGED = "study.json", "diverged.json"


class State(Enum):
    """State of a run."""

    NEW = "new"
    STARTED = "started"
    FINISHED = "finished"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Progress:
    """Progress of a run of a study.

    Attributes
    ----------
    run : Planned
        The run.
    state : State
        New, started, finished or diverged.
    epochs : int
        Number of finished epochs.
    """

    run: Planned
    state: State
    epochs: int


def save_study(folder: Path, study: Study) -> None:
    """Write the plan next to the runs, so that a report knows which are missing."""
    make_folder(folder)
    write_json(folder / STUDY, {"study": study.to_dict()})


def load_study(folder: Path) -> Study:
    """Read a plan that `save_study` wrote."""
    values = read_json(folder / STUDY).get("study")
    try:
        if not isinstance(values, dict):
            raise InputError("a table is needed")
        study = Study.from_dict(values)
        study.runs()  # the seeds, and names that make folders
        return study
    except (TypeError, KeyError, ValueError, AttributeError) as error:  # InputError is a ValueError
        raise InputError(f"{folder / STUDY}: holds no study: {error}") from error


def progress(folder: Path, runs: Sequence[Planned]) -> list[Progress]:
    """Return the state of every run of a study; raise `InputError` for folders of other runs, all of them named."""
    found, foreign = [], []
    for run in runs:
        path = folder / run.folder
        if is_empty(path):
            found.append(Progress(run, State.NEW, 0))
        elif not (path / CONFIG).exists() or config_of(path).digest() != run.config.digest():
            foreign.append(run.folder)
        else:
            found.append(Progress(run, *_state(path, run.config)))
    if foreign:
        raise InputError(
            f"{folder}: {', '.join(foreign)} {'are runs' if len(foreign) > 1 else 'is a run'} of another configuration "
            "than the study's; remove what is not needed any more, or choose another folder"
        )
    return found


def _state(path: Path, config: TrainConfig) -> tuple[State, int]:
    lines = read_lines(path / LINES) if (path / LINES).exists() else []
    done = int(lines[-1]["epoch"]) if lines else 0
    if done == config.epochs and all((path / name).exists() for name in RESULTS):
        return State.FINISHED, done
    return State.DIVERGED if divergence(path, config) else State.STARTED, done


def record_divergence(path: Path, config: TrainConfig, message: str) -> None:
    """Write down in the folder of a run that it diverged: it would again."""
    write_json(path / DIVERGED, {"config": config.digest(), "message": message})


def divergence(path: Path, config: TrainConfig) -> str | None:
    """Return how a run of this configuration diverged, or None if it did not."""
    if not (path / DIVERGED).exists():
        return None
    record = read_json(path / DIVERGED)
    return str(record.get("message")) if record.get("config") == config.digest() else None
