"""The command that trains networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from etfopt.cli import _tables as tables
from etfopt.cli._app import console, interruptible, one_of, require_folder, say
from etfopt.cli._settings import takes_settings
from etfopt.cli.studies import train_study
from etfopt.errors import InputError
from etfopt.experiments.settings import Machine, TrainConfig, read_config, require_processors
from etfopt.experiments.settings.names import FOLDER, LOGGERS

if TYPE_CHECKING:
    from etfopt.experiments.training.results import RunResult

__all__ = ["train"]


SETTINGS, AGAIN, MACHINE = "Settings and output", "Resuming, and studies", "Machine"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    """Return an option of a panel of the help."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


@takes_settings
def train(
    ctx: typer.Context,
    study: Annotated[Path | None, typer.Argument(metavar="STUDY.toml", help="A study: train all its runs.")] = None,
    *,
    chosen: dict[str, Any],
    config: Annotated[Path | None, _option(SETTINGS, "A .toml or .json file; options given here win over it.")] = None,
    settings: Annotated[
        list[str] | None, _option(SETTINGS, "Any other setting, as in --set optimizer.momentum=0.8", "--set")
    ] = None,
    out: Annotated[Path | None, _option(SETTINGS, "Folder for results. [runs/DATA-HEAD-seedN; studies: runs]")] = None,
    quiet: Annotated[bool, _option(SETTINGS, "No progress bar.", "--quiet")] = False,
    resume: Annotated[Path | None, _option(AGAIN, "Folder of a run to resume, by its own settings.")] = None,
    overwrite: Annotated[bool, _option(AGAIN, "Replace an earlier run in the folder.", "--overwrite")] = False,
    from_epoch: Annotated[int | None, _option(AGAIN, "With --resume: from the checkpoint of this epoch.")] = None,
    jobs: Annotated[int | None, _option(AGAIN, "Of a study: runs at a time, each on one thread. [1]")] = None,
    dry_run: Annotated[bool, _option(AGAIN, "Of a study: list the runs and train none.", "--dry-run")] = False,
    threads: Annotated[int, _option(MACHINE, "CPU threads; one is fastest for a small network.")] = 1,
    accelerator: Annotated[
        Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"], _option(MACHINE, "Kind of device to train on.")
    ] = "auto",
    devices: Annotated[int, _option(MACHINE, "Devices that share every batch, a process each.")] = 1,
    precision: Annotated[
        Literal["32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"],
        _option(MACHINE, "Precision of the computations."),
    ] = "32-true",
    logger: Annotated[
        str,
        _option(
            MACHINE,
            f"Where measures are logged too: {LOGGERS.listed}.",
            autocompletion=one_of(lambda: LOGGERS),
        ),
    ] = "none",
) -> None:
    """Train a network with one of the heads and print its neural-collapse measures.

    --resume continues a stopped run from its last checkpoint. A folder with an earlier run is refused
    unless --overwrite is given. A study trains many runs, into runs/STUDY/, and leaves out what is finished. Defaults
    are in brackets.

    ```
    etfopt train --data digits --head nearest --epochs 30
    etfopt train --resume runs/digits-nearest-seed0
    etfopt train --config my.toml --set optimizer.momentum=0.8 --out runs/new
    etfopt train study.toml --jobs 2
    ```
    """
    machine: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": devices,
        "precision": precision,
        "threads": threads,
    }
    Machine(**machine)
    require_processors(jobs or 1, "jobs")
    if study is not None:
        _refuse_typed(ctx, STUDYING, f"with a study: the settings are those of {study}")
        del machine["devices"]
        train_study(study, out or Path("runs"), jobs or 1, dry_run, quiet, {**machine, "logger": logger})
        return
    if jobs is not None or dry_run:
        raise InputError(f"{'--dry-run' if dry_run else '--jobs'} has no meaning without a study")
    bar = console.is_terminal and not quiet
    if resume is not None:
        _refuse_typed(ctx, RESUMING, f"with --resume: the settings are those of {resume}/config.json")
        if not (resume / "config.json").exists():
            raise InputError(f"{resume}: holds no run: there is no config.json in it; name the folder of a run")
        _print_result(_resumed(resume, from_epoch, progress_bar=bar, logger=logger, **machine))
        return
    if from_epoch is not None:
        raise InputError(f"from_epoch = {from_epoch} has no meaning without --resume")
    settings_given = {**chosen, **_assignments(settings or [])}
    final = TrainConfig().with_settings(settings_given) if config is None else read_config(config, settings_given)
    _require_data(final.data.name)
    path = out or Path("runs") / final.label
    require_folder(path)
    _print_result(_trained(final, path, overwrite=overwrite, progress_bar=bar, logger=logger, **machine))


STUDYING = ("study", "out", "jobs", "dry_run", "threads", "quiet", "accelerator", "precision", "logger")
RESUMING = ("resume", "from_epoch", "threads", "quiet", "accelerator", "devices", "precision", "logger")


def _trained(config: TrainConfig, path: Path, **options: Any) -> RunResult:
    """Train a new run. PyTorch and Lightning take seconds to import, and come after the settings are checked."""
    from etfopt.experiments.training.train import kept, train

    with interruptible(lambda: kept(path)):
        return train(config, path, **options)


def _require_data(name: str) -> None:
    """Refuse a folder of images that is not there."""
    if name.startswith(FOLDER) and not (folder := Path(name.removeprefix(FOLDER)).expanduser()).is_dir():
        raise InputError(f"{folder}: there is no such folder")


def _resumed(path: Path, from_epoch: int | None, **options: Any) -> RunResult:
    """Go on with a run."""
    from etfopt.experiments.training.train import kept, resume

    with interruptible(lambda: kept(path)):
        result = resume(path, from_epoch=from_epoch, **options)
    if not result.trained:
        epochs = len(result.history) - 1
        print(f"{path} is finished, {epochs} of {epochs} epochs: nothing was done", file=sys.stderr)
    return result


def _print_result(result: RunResult) -> None:
    from etfopt.experiments.training.machine import process_rank

    if process_rank():
        return  # one of several processes speaks
    config, epochs = result.config, len(result.history) - 1
    title = f"{config.data.name}, head {config.head.name}, seed {config.seed}, {epochs} epochs"
    console.print(tables.measures(result.history[-1], title))
    say(f"{result.step_ms:.2f} ms a step (median). Written to {result.path}/")


def _refuse_typed(ctx: typer.Context, allowed: tuple[str, ...], why: str) -> None:
    """Refuse typed options if the settings come from elsewhere, since they would be ignored."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    typed = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if wrong := [name for name in typed if name not in allowed]:
        spelt = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
        raise InputError(f"{spelt[wrong[0]]} has no meaning {why}")


def _assignments(settings: list[str]) -> dict[str, str]:
    """Return NAME=VALUE pairs as a dictionary."""
    pairs = [setting.partition("=") for setting in settings]
    for name, sign, _ in pairs:
        if not sign:
            raise InputError(f"--set {name!r} is no assignment; write it as in --set optimizer.momentum=0.8")
    return {name.strip(): value.strip() for name, _, value in pairs}
