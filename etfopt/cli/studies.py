"""The commands that train a study, report what it shows, and demonstrate all of it on handwritten digits."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etfopt._scalars import as_integer
from etfopt.cli import _tables as tables
from etfopt.cli._app import (
    AsJson,
    Overwrite,
    Quiet,
    hand_over,
    interruptible,
    progress,
    require_file,
    require_folder,
    say,
)
from etfopt.cli._solution_tables import solution_table, verdict
from etfopt.errors import InputError

if TYPE_CHECKING:
    from etfopt.experiments.studies._progress import Progress
    from etfopt.experiments.studies.plan import Study

__all__ = ["demo", "report", "train_study"]


def train_study(
    path: Path, out: Path, jobs: int, dry_run: bool, quiet: bool, as_json: bool, machine: dict[str, Any]
) -> None:
    """Train what is not finished of a study, its tuning first; end with status 1 if a run has failed."""
    require_file(path)
    require_folder(out)
    from etfopt.experiments.studies._progress import progress as progress_of
    from etfopt.experiments.studies.plan_file import read_study
    from etfopt.experiments.studies.tuning import TUNING, chosen

    study = read_study(path)
    folder, quiet = out / study.name, quiet or as_json
    if study.tuning is not None:
        if dry_run:
            tried = progress_of(folder / TUNING, study.tuning.runs())
            if any(p.state.value in ("new", "started") for p in tried):
                left = f"{len(study.seeds) * len(study.variants)} runs of the study follow"
                said = f"{left}, with the settings that these {len(tried)} choose"
                _show_plan(study.tuning, folder / TUNING, tried, [said], as_json)
                return
        else:
            _, said = _train_missing(study.tuning, folder / TUNING, jobs, quiet, machine)
            if not as_json:
                say(said)
        study = chosen(study, folder)
    if dry_run:
        _show_plan(study, folder, progress_of(folder, study.runs()), [], as_json)
        return
    failed, said = _train_missing(study, folder, jobs, quiet, machine)
    lines = [said, *([_write_report(folder, folder / "report")] if failed < len(study.runs()) else [])]
    hand_over(_states(folder, progress_of(folder, study.runs())), [], lines, as_json)
    if failed:
        raise typer.Exit(1)


def _show_plan(study: Study, folder: Path, runs: Sequence[Progress], lines: Sequence[str], as_json: bool) -> None:
    """List the runs of a study."""
    hand_over(_states(folder, runs), [tables.planned(runs, f"{study.title}: {folder}/")], lines, as_json)


def _train_missing(study: Study, folder: Path, jobs: int, quiet: bool, machine: dict[str, Any]) -> tuple[int, str]:
    """Train what is not finished of a study; return how many runs have failed, now or before, and a summary."""
    from etfopt.experiments.studies._progress import State, divergence
    from etfopt.experiments.studies._progress import progress as progress_of
    from etfopt.experiments.studies.runs import run_study

    before = progress_of(folder, study.runs())
    todo = [p for p in before if p.state in (State.NEW, State.STARTED)]
    diverged = [p.run for p in before if p.state is State.DIVERGED]
    failed = [f"{run.folder}: {divergence(folder / run.folder, run.config)}" for run in diverged]
    epochs = sum(p.run.config.epochs - p.epochs for p in todo)
    kept = f"Kept: {folder}/, every finished epoch. To go on: the same command"
    with interruptible(lambda: kept), progress(epochs, quiet) as step:
        ended = run_study(study, folder, jobs=jobs, on_epoch=step, **machine)
    failed += [f"{outcome.run.folder}: {outcome.error}" for outcome in ended if outcome.error]
    for line in failed:
        print(line, file=sys.stderr)
    trained, done = sum(outcome.error is None for outcome in ended), len(before) - len(todo) - len(diverged)
    counts = f"{trained} trained now, {done} finished before, {len(failed)} failed"
    return len(failed), f"{len(before)} runs: {counts}. Written to {folder}/"


def _states(folder: Path, runs: Sequence[Progress]) -> dict[str, Any]:
    """Return the state of a study and of its runs, for JSON."""
    found = [
        {"run": p.run.folder, "state": p.state.value, "epochs": p.epochs, "planned": p.run.config.epochs} for p in runs
    ]
    return {"path": str(folder), "runs": found}


def _write_report(
    runs: Path, folder: Path, baselines: Sequence[str] = (), epochs: tuple[int, int] | None = None
) -> str:
    """Write the report of what is finished; return a sentence on what is in it."""
    from etfopt.experiments.studies.pages import write_report
    from etfopt.experiments.studies.report import make_report

    found = make_report(runs, baselines, epochs)
    files = write_report(found, folder)
    missing, diverged = len(found.collected.missing), len(found.collected.diverged)
    finished = sum(map(len, found.collected.runs.values()))
    return f"{finished} runs, {missing} not finished, {diverged} diverged. Wrote {', '.join(map(str, files))}"


def report(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="Folder of a study, or of runs named VARIANT-seedN.")],
    baseline: Annotated[
        list[str] | None, typer.Option(help="Compare with this variant; may be given again. [the study's]")
    ] = None,
    epochs: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="A B", help="Two epochs whose test accuracies the table shows. [a quarter of all, and all]"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report. [RUNS/report]")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a study: tables, paired differences between seeds, figures and all numbers, in one folder.

    ```
    etfopt report runs/heads-on-mnist
    etfopt report runs/heads-on-mnist --baseline learned --epochs 50 200
    ```
    """
    if not runs.is_dir():
        raise InputError(f"{runs}: there is no such folder; name the folder of a study or of runs")
    folder = out or runs / "report"
    require_folder(folder)
    said = _write_report(runs, folder, baseline or (), epochs)
    hand_over(folder / "report.json", [], [said], as_json)


def demo(
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("runs/demo"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train three heads with three seeds on handwritten digits, and certify the ETF nearest to their class means.

    Takes about a minute on two cores. The same command resumes a stopped demo.

    ```
    etfopt demo
    etfopt demo --epochs 5 --out runs/short
    ```
    """
    as_integer(epochs, "epochs", at_least=1)
    require_folder(out)
    from etfopt.experiments.studies.demo import demo_study, run_demo

    start, study = time.perf_counter(), demo_study(epochs)
    kept = f"Kept: {out}/, every finished epoch. To go on: the same command"
    with interruptible(lambda: kept), progress(epochs * len(study.runs()), quiet or as_json) as step:
        result = run_demo(study, out, on_epoch=step, overwrite=overwrite)
    title = f"digits, {epochs} epochs: median and range over {len(study.seeds)} seeds"
    spreads = tables.spreads(result.report.spreads, title, epochs)
    shown = (spreads, verdict(result.nearest), solution_table(result.nearest))
    wrote = f"wrote {out}/report/ and a folder for each run, in {time.perf_counter() - start:.0f} s"
    hand_over(out / "report" / "report.json", shown, [wrote], as_json)
