"""The command that trains networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etfopt._arrays import as_integer
from etfopt.cli import _tables as tables
from etfopt.cli import _values as values
from etfopt.cli._app import console, interruptible, one_of
from etfopt.cli._early import require_file, require_folder, require_machine, require_settings
from etfopt.cli.studies import train_study
from etfopt.errors import InputError

if TYPE_CHECKING:
    from etfopt.experiments.training.results import RunResult

__all__ = ["train"]


# What is not given keeps its value in the configuration file, or its default; so every option's default is None here,
# and the true one, which importing the configuration would cost seconds to look up, is named in the help.


def _option(panel: str, text: str, *names: str) -> Any:
    """Return an option of a panel of the help, whose values the shell completes."""
    return typer.Option(help=text, rich_help_panel=panel, autocompletion=one_of(*names) if names else None)


DATA, NETWORK, HEAD, TRAINING = "Data", "Network", "Head", "Optimisation"
SETTINGS, AGAIN, MACHINE = "Settings and output", "Going on, and studies", "Machine"


def train(
    ctx: typer.Context,
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY.toml", help="A study: all its runs are trained, instead of one.")
    ] = None,
    data: Annotated[
        str | None, _option(DATA, "digits, mnist5k, ufm, cifar10, imagefolder:PATH, ... [digits]", *values.DATA)
    ] = None,
    batch_size: Annotated[int | None, _option(DATA, "Samples a batch. [128]")] = None,
    batches: Annotated[str | None, _option(DATA, "shuffled or stratified. [shuffled]", *values.BATCHES)] = None,
    augmentation: Annotated[
        str | None, _option(DATA, "none, flip-crop or affine-crop. [none]", *values.AUGMENTATIONS)
    ] = None,
    backbone: Annotated[
        str | None,
        _option(
            NETWORK,
            "mlp, convnet, convnet-flat, resnet18, resnet34, resnet50, vgg13, free. [mlp; free with ufm]",
            *values.BACKBONES,
        ),
    ] = None,
    width: Annotated[
        int | None,
        _option(NETWORK, "Hidden units, or channels of the first stage. [128 for mlp, 64 for the others]"),
    ] = None,
    dim: Annotated[int | None, _option(NETWORK, "Dimension d of the features. [the backbone's own]")] = None,
    head: Annotated[str | None, _option(HEAD, "learned, fixed or nearest. [nearest]", *values.HEADS)] = None,
    temperature: Annotated[
        str | None, _option(HEAD, "Norm tau of the features, or auto. [5; 1 with dot-regression]")
    ] = None,
    delta: Annotated[float | None, _option(HEAD, "Proximal weight (nearest head). [0.001]")] = None,
    averaging: Annotated[
        str | None,
        _option(
            HEAD,
            "Running means: paper, cumulative or a rate from 0 to 1 (nearest head). [paper]",
            *values.AVERAGINGS,
        ),
    ] = None,
    implicit_gradient: Annotated[
        bool | None, _option(HEAD, "Whether the gradient passes through U*(H) (nearest head). [yes]")
    ] = None,
    seed: Annotated[int | None, _option(TRAINING, "Seeds network and batches. [0]")] = None,
    epochs: Annotated[int | None, _option(TRAINING, "Passes over the training split. [60]")] = None,
    loss: Annotated[
        str | None,
        _option(TRAINING, "cross-entropy or dot-regression. [cross-entropy]", *values.LOSSES),
    ] = None,
    optimizer: Annotated[str | None, _option(TRAINING, "sgd, adam, adamw or agd. [sgd]", *values.OPTIMIZERS)] = None,
    learning_rate: Annotated[float | None, _option(TRAINING, "At the start, or after the warm-up. [0.05]")] = None,
    weight_decay: Annotated[float | None, _option(TRAINING, "As PyTorch's optimisers mean it. [0.0005]")] = None,
    schedule: Annotated[
        str | None, _option(TRAINING, "Of the learning rate: constant, cosine or step. [cosine]", *values.SCHEDULES)
    ] = None,
    warmup: Annotated[float | None, _option(TRAINING, "Epochs in which the rate rises. [0]")] = None,
    config: Annotated[
        Path | None, _option(SETTINGS, "A .toml or .json file of settings; options given here win over it.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, as in --set optimizer.momentum=0.8", rich_help_panel=SETTINGS),
    ] = None,
    out: Annotated[
        Path | None, _option(SETTINGS, "Folder for results. [runs/DATA-HEAD-seedN; for a study, runs]")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.", rich_help_panel=SETTINGS)] = False,
    resume: Annotated[Path | None, _option(AGAIN, "Folder of a run to go on with, by its own settings.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.", rich_help_panel=AGAIN)
    ] = False,
    from_epoch: Annotated[int | None, _option(AGAIN, "With --resume: from the checkpoint of this epoch.")] = None,
    jobs: Annotated[int | None, _option(AGAIN, "Of a study: runs at a time, each on one thread. [1]")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Of a study: list the runs and train none.", rich_help_panel=AGAIN)
    ] = False,
    threads: Annotated[int, _option(MACHINE, "CPU threads; one is fastest for a small network.")] = 1,
    accelerator: Annotated[str, _option(MACHINE, "auto, cpu, gpu, ...", *values.ACCELERATORS)] = "auto",
    devices: Annotated[int, _option(MACHINE, "Devices that share every batch, a process each.")] = 1,
    precision: Annotated[str, _option(MACHINE, "32-true, bf16-mixed, 64-true, ...", *values.PRECISIONS)] = "32-true",
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
    require_machine(threads=threads, jobs=jobs)
    as_integer(devices, "devices", at_least=1)
    if study is not None:
        _refuse_typed(ctx, STUDYING, f"with a study: the settings are those of {study}")
        options: dict[str, Any] = {"accelerator": accelerator, "precision": precision, "threads": threads}
        train_study(study, out or Path("runs"), jobs or 1, dry_run, quiet, options)
        return
    if jobs is not None or dry_run:
        raise InputError(f"{'--dry-run' if dry_run else '--jobs'} has no meaning without a study")
    machine: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": devices,
        "precision": precision,
        "threads": threads,
    }
    bar = console.is_terminal and not quiet
    if resume is not None:
        _refuse_typed(ctx, RESUMING, f"with --resume: the settings are those of {resume}/config.json")
        require_file(resume / "config.json")
        _print_result(_resumed(resume, from_epoch, progress_bar=bar, **machine))
        return
    if from_epoch is not None:
        raise InputError(f"from_epoch = {from_epoch} has no meaning without --resume")
    given = {
        "data.name": data,
        "head.name": head,
        "seed": seed,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "data.batches": batches,
        "data.augmentation": augmentation,
        "backbone.name": backbone,
        "backbone.width": width,
        "backbone.dim": dim,
        "loss.name": loss,
        "optimizer.name": optimizer,
        "optimizer.learning_rate": learning_rate,
        "optimizer.weight_decay": weight_decay,
        "schedule.name": schedule,
        "schedule.warmup": warmup,
        "head.temperature": temperature,
        "head.delta": delta,
        "head.averaging": averaging,
        "head.implicit_gradient": implicit_gradient,
    }
    chosen = {name: value for name, value in given.items() if value is not None} | _assignments(settings or [])
    require_settings(chosen)
    if config is not None:
        require_file(config)
    if out is not None:
        require_folder(out)
    _print_result(_trained(chosen, config, out, overwrite=overwrite, progress_bar=bar, **machine))


STUDYING = ("study", "out", "jobs", "dry_run", "threads", "quiet", "accelerator", "precision")
RESUMING = ("resume", "from_epoch", "threads", "quiet", "accelerator", "devices", "precision")


def _trained(settings: dict[str, Any], config: Path | None, out: Path | None, **options: Any) -> RunResult:
    """Train a new run. Lightning takes as long to import as PyTorch, and comes after the settings are checked."""
    from etfopt.experiments.settings import TrainConfig, read_config

    final = TrainConfig().with_settings(settings) if config is None else read_config(config, settings)
    path = out or Path("runs") / final.label
    from etfopt.experiments.training.train import kept, train

    with interruptible(lambda: kept(path)):
        return train(final, path, **options)


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
    console.print(
        f"{result.step_ms:.2f} ms a step (median). Written to {result.path}/",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _refuse_typed(ctx: typer.Context, allowed: tuple[str, ...], why: str) -> None:
    """Refuse options that were typed where the settings come from elsewhere: none is to be passed over."""
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
