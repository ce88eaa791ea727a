"""The command that trains networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from etfopt.cli import _tables as tables
from etfopt.cli._app import hand_over, interruptible, one_of, require_folder
from etfopt.cli._epochs import epochs_shown
from etfopt.cli._settings import takes_settings
from etfopt.cli.studies import train_study
from etfopt.errors import InputError
from etfopt.experiments.settings import Machine, TrainConfig, read_config, require_processors
from etfopt.experiments.settings.names import FOLDER, LOGGERS

if TYPE_CHECKING:
    from etfopt.experiments.training.results import RunResult

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
    config: Annotated[
        Path | None, _option(SETTINGS, "Read settings from a .toml or .json file; options given here win.")
    ] = None,
    settings: Annotated[
        list[str] | None, _option(SETTINGS, "Set any other setting, as in --set optimizer.momentum=0.8", "--set")
    ] = None,
    out: Annotated[Path | None, _option(SETTINGS, "Folder for results. [runs/DATA-HEAD-seedN; studies: runs]")] = None,
    everything: Annotated[bool, _option(SETTINGS, "Print all measures at the end, not eight.", "--all")] = False,
    as_json: Annotated[bool, _option(SETTINGS, "Print one JSON object instead of tables.", "--json")] = False,
    quiet: Annotated[bool, _option(SETTINGS, "Show no progress.", "--quiet")] = False,
    resume: Annotated[
        Path | None, _option(AGAIN, "Continue the run in this folder with its own settings; --epochs may differ.")
    ] = None,
    overwrite: Annotated[bool, _option(AGAIN, "Replace an earlier run in the folder.", "--overwrite")] = False,
    from_epoch: Annotated[int | None, _option(AGAIN, "With --resume: start from the checkpoint of this epoch.")] = None,
    jobs: Annotated[int | None, _option(AGAIN, "Runs of a study at a time, each on one thread. [1]")] = None,
    dry_run: Annotated[bool, _option(AGAIN, "List the runs of a study and train none.", "--dry-run")] = False,
    threads: Annotated[int, _option(MACHINE, "CPU threads; one is fastest for a small network.")] = 1,
    accelerator: Annotated[
        Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"], _option(MACHINE, "Kind of device to train on.")
    ] = "auto",
    devices: Annotated[int, _option(MACHINE, "Devices that share every batch, each with its own process.")] = 1,
    precision: Annotated[
        Literal["32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"],
        _option(MACHINE, "Floating-point precision."),
    ] = "32-true",
    logger: Annotated[
        str,
        _option(MACHINE, f"Log the measures with {LOGGERS.listed}.", autocompletion=one_of(lambda: LOGGERS)),
    ] = "none",
) -> None:
    """Train a network with one of the heads, show loss and accuracy, and print the measures of neural collapse.

    If the folder holds a run already, pass --resume to continue this run, or --overwrite to replace it. --resume RUN
    --epochs 20 continues to 20 epochs with the schedules constant and step; cosine ends with its run. A study trains
    many runs into runs/STUDY/ and skips finished ones. Defaults are in brackets.

    ```
    etfopt train --data digits --head nearest --epochs 30
    etfopt train --resume runs/digits-nearest-seed0
    etfopt train --resume runs/digits-nearest-seed0 --epochs 20
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
    LOGGERS.checked(logger, "--logger")
    require_processors(jobs or 1, "jobs")
    if study is not None:
        _refuse_typed(ctx, STUDYING, f"with a study: the settings are those of {study}")
        del machine["devices"]
        train_study(study, out or Path("runs"), jobs or 1, dry_run, quiet, as_json, {**machine, "logger": logger})
        return
    if jobs is not None or dry_run:
        raise InputError(f"{'--dry-run' if dry_run else '--jobs'} has no meaning without a study")
    options = {"logger": logger, **machine}
    if resume is not None:
        _refuse_typed(ctx, RESUMING, f"with --resume: the settings are those of {resume}/config.json")
        result = _resumed(resume, chosen.get("training.epochs"), quiet, from_epoch=from_epoch, **options)
    else:
        if from_epoch is not None:
            raise InputError(f"from_epoch = {from_epoch} has no meaning without --resume")
        settings_given = {**chosen, **_assignments(settings or [])}
        final = TrainConfig().with_settings(settings_given) if config is None else read_config(config, settings_given)
        _require_data(final.data.name)
        path = out or Path("runs") / final.label
        require_folder(path)
        result = _trained(final, path, quiet, overwrite=overwrite, **options)
    _print_result(result, everything, as_json)


OUTPUT = ("quiet", "verbose", "as_json")
STUDYING = ("study", "out", "jobs", "dry_run", "threads", *OUTPUT, "accelerator", "precision", "logger")
RESUMING = (
    "resume",
    "epochs",
    "from_epoch",
    "threads",
    *OUTPUT,
    "everything",
    "accelerator",
    "devices",
    "precision",
    "logger",
)


def _trained(config: TrainConfig, path: Path, quiet: bool, **options: Any) -> RunResult:
    """Train a new run. PyTorch and Lightning take seconds to import, and come after the settings are checked."""
    from etfopt.experiments.training.machine import process_rank
    from etfopt.experiments.training.train import kept, train

    with interruptible(lambda: kept(path)), epochs_shown(quiet or process_rank() > 0) as show:
        return train(config, path, on_progress=show, **options)


def _require_data(name: str) -> None:
    """Refuse a folder of images that is not there."""
    if name.startswith(FOLDER) and not (folder := Path(name.removeprefix(FOLDER)).expanduser()).is_dir():
        raise InputError(f"{folder}: there is no such folder")


def _resumed(path: Path, epochs: int | None, quiet: bool, **options: Any) -> RunResult:
    """Continue a run. What its settings refuse is refused before PyTorch is imported."""
    from etfopt.experiments.training._records import config_of

    planned = config_of(path)
    if epochs is not None:
        planned.prolonged(epochs)
    from etfopt.experiments.training.machine import process_rank
    from etfopt.experiments.training.train import kept, resume

    with interruptible(lambda: kept(path)), epochs_shown(quiet or process_rank() > 0) as show:
        result = resume(path, epochs=epochs, on_progress=show, **options)
    if not result.trained:
        done = len(result.history) - 1
        print(f"{path} is finished, {done} of {done} epochs: nothing was done", file=sys.stderr)
    return result


def _print_result(result: RunResult, everything: bool, as_json: bool) -> None:
    from etfopt.experiments.training.machine import process_rank

    if process_rank():
        return  # one of several processes speaks
    config, epochs, last = result.config, len(result.history) - 1, result.history[-1]
    title = f"{config.data.name}, head {config.head.name}, seed {config.seed}, {epochs} epochs"
    document = {
        "path": str(result.path),
        "epochs": epochs,
        "trained": result.trained,
        "step_ms": result.step_ms,
        "step_bytes": result.step_bytes,
        "measures": last,
        "config": config.to_dict(),
        "digest": config.digest(),
    }
    shown = tables.measures(last, title) if everything else tables.summary(last, title)
    said = f"{result.step_ms:.2f} ms a step (median). Written to {result.path}/"
    hand_over(document, [shown], [said if everything else f"{said}; --all shows {len(last) - 1} measures"], as_json)


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
