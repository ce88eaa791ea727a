"""The command that trains networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etfopt import _tables as tables
from etfopt.cli import _values as values
from etfopt.cli._app import console, interruptible, one_of
from etfopt.cli.studies import train_study
from etfopt.errors import InputError

if TYPE_CHECKING:
    from etfopt.experiments.results import RunResult

__all__ = ["train"]


# What is not given keeps its value in the configuration file, or its default; so every option's default is None here,
# and the true one, which importing the configuration would cost seconds to look up, is named in the help.


def train(
    ctx: typer.Context,
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.toml]", help="A study: all its runs are trained, instead of one.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, mnist5k, ufm, cifar10, imagefolder:PATH, ... [digits]", autocompletion=one_of(*values.DATA)
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="learned, fixed or nearest. [nearest]", autocompletion=one_of(*values.HEADS))
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds network and batches. [0]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split. [60]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a batch. [128]")] = None,
    batches: Annotated[
        str | None, typer.Option(help="shuffled or stratified. [shuffled]", autocompletion=one_of(*values.BATCHES))
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(help="none, flip-crop or affine-crop. [none]", autocompletion=one_of(*values.AUGMENTATIONS)),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="mlp, convnet, resnet18, resnet34, resnet50, vgg13; free with ufm. [mlp]",
            autocompletion=one_of(*values.BACKBONES),
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Hidden units, or channels of the first stage. [128 for mlp, 64 for the others]")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Dimension d of the features. [the backbone's own]")] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="cross-entropy, or dot-regression with --temperature 1. [cross-entropy]",
            autocompletion=one_of(*values.LOSSES),
        ),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam, adamw or agd. [sgd]", autocompletion=one_of(*values.OPTIMIZERS))
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At the start, or after the warm-up. [0.05]")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Share of a weight taken off, per unit of the learning rate. [0.0005]")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Of the learning rate: constant, cosine or step. [cosine]", autocompletion=one_of(*values.SCHEDULES)
        ),
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Epochs in which the rate rises. [0]")] = None,
    temperature: Annotated[str | None, typer.Option(help="Norm tau of the features, or auto. [5]")] = None,
    delta: Annotated[float | None, typer.Option(help="Proximal weight (nearest head). [0.001]")] = None,
    averaging: Annotated[
        str | None, typer.Option(help="Running means: paper, cumulative or a rate from 0 to 1 (nearest head). [paper]")
    ] = None,
    implicit_gradient: Annotated[bool | None, typer.Option(help="Gradient through U*(H) (nearest head). [yes]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A .toml or .json file of settings; options given here win over it.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as in --set optimizer.momentum=0.8")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for all that is written. [runs/DATA-HEAD-seedN; for a study runs]")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; one is fastest for a small network.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    accelerator: Annotated[
        str, typer.Option(help="auto, cpu, gpu, ...", autocompletion=one_of(*values.ACCELERATORS))
    ] = "auto",
    devices: Annotated[int, typer.Option(help="Devices that share every batch, a process each.")] = 1,
    precision: Annotated[
        str, typer.Option(help="32-true, bf16-mixed, 64-true, ...", autocompletion=one_of(*values.PRECISIONS))
    ] = "32-true",
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to go on with, by its own settings.")] = None,
    from_epoch: Annotated[
        int | None, typer.Option(help="With --resume: go on from the checkpoint of this epoch.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Of a study: runs at a time, each on one thread. [1]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Of a study: list the runs and train none.")] = False,
) -> None:
    """Train a network with one of the heads and print its neural-collapse measures.

    A run that was stopped goes on from its last checkpoint with --resume. A study trains many runs, into runs/STUDY/,
    and leaves out what is finished. What is not given has the value in square brackets.

    ```
    etfopt train --data digits --head nearest --epochs 30
    etfopt train --resume runs/digits-nearest-seed0
    etfopt train --config settings.toml --set optimizer.momentum=0.8 --out runs/other
    etfopt train study.toml --jobs 2
    ```
    """
    if study is not None:
        _refuse_typed(ctx, STUDYING, f"with a study: the settings are those of {study}")
        options: dict[str, Any] = {"accelerator": accelerator, "precision": precision, "threads": threads}
        train_study(study, out or Path("runs"), jobs or 1, dry_run, quiet, options)
        return
    if jobs is not None or dry_run:
        raise InputError(f"{'--dry-run' if dry_run else '--jobs'} has no meaning without a study")
    from etfopt.experiments.config import TrainConfig, read_config
    from etfopt.experiments.train import kept
    from etfopt.experiments.train import train as run

    machine: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": devices,
        "precision": precision,
        "threads": threads,
    }
    bar = console.is_terminal and not quiet
    if resume is not None:
        _refuse_typed(ctx, RESUMING, f"with --resume: the settings are those of {resume}/config.json")
        with interruptible(lambda: kept(resume)):
            result = _resumed(resume, from_epoch, progress_bar=bar, **machine)
        _print_result(result)
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
    base = TrainConfig() if config is None else read_config(config)
    chosen = {name: value for name, value in given.items() if value is not None}
    final = base.with_settings({**chosen, **_assignments(settings or [])})
    path = out or Path("runs") / final.label
    with interruptible(lambda: kept(path)):
        result = run(final, path, progress_bar=bar, **machine)
    _print_result(result)


STUDYING = ("study", "out", "jobs", "dry_run", "threads", "quiet", "accelerator", "precision")
RESUMING = ("resume", "from_epoch", "threads", "quiet", "accelerator", "devices", "precision")


def _resumed(path: Path, from_epoch: int | None, **options: Any) -> RunResult:
    """Go on with a run and print its measures."""
    from etfopt.experiments.train import resume

    result = resume(path, from_epoch=from_epoch, **options)
    if not result.trained:
        epochs = len(result.history) - 1
        print(f"{path} is finished, {epochs} of {epochs} epochs: nothing was done", file=sys.stderr)
    return result


def _print_result(result: RunResult) -> None:
    from etfopt.experiments.trainer import process_rank

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
        raise InputError(f"--{wrong[0].replace('_', '-')} has no meaning {why}")


def _assignments(settings: list[str]) -> dict[str, str]:
    """Return NAME=VALUE pairs as a dictionary."""
    pairs = [setting.partition("=") for setting in settings]
    for name, sign, _ in pairs:
        if not sign:
            raise InputError(f"--set {name!r} is no assignment; write it as in --set optimizer.momentum=0.8")
    return {name.strip(): value.strip() for name, _, value in pairs}
