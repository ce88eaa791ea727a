"""Options of a command that are generated from the settings of a run: names, types, help, completion and defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from etfopt._options import AVERAGINGS
from etfopt.cli._app import one_of
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.settings.names import BACKBONES, DATA, FOLDER, FRAMES, HEADS, LOSSES, OPTIMIZERS

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PANELS = {
    "data": "Data",
    "backbone": "Network",
    "head": "Head",
    "loss": "Optimisation",
    "optimizer": "Optimisation",
    "schedule": "Optimisation",
    "training": "Optimisation",
    "": "Optimisation",
}
COMPLETED = {
    "data.name": [*DATA, FOLDER],
    "head.averaging": [*AVERAGINGS],
    **{registry.kind: [*registry] for registry in (BACKBONES, FRAMES, HEADS, LOSSES, OPTIMIZERS)},
}

SETTINGS: dict[str, FieldInfo] = {
    name: field
    for name, field in TrainConfig.settings()
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["option"]
}
SETTING_OF = {(name.removesuffix(".name").rpartition(".")[2]): name for name in SETTINGS}
"""Settings by the names of their options: "backbone.name" is the option --backbone, "head.delta" is --delta."""


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every setting that has one; those that are typed come as the dictionary `chosen`.

    What is not typed keeps its value in the configuration file, or its default: so every option's default is None here.
    """

    @functools.wraps(command)
    def run(**values: Any) -> None:
        typed = {name: values.pop(option) for option, name in SETTING_OF.items()}
        command(**values, chosen={name: value for name, value in typed.items() if value is not None})

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "chosen"]
    made = [_parameter(option, name, SETTINGS[name]) for option, name in SETTING_OF.items()]
    made.sort(key=lambda p: [*PANELS].index(SETTING_OF[p.name].rpartition(".")[0]))
    run.__signature__ = inspect.Signature([*own[:2], *made, *own[2:]])  # type: ignore[attr-defined] # typer reads it
    run.__annotations__ = {p.name: p.annotation for p in [*own, *made]}
    return run


def _parameter(option: str, name: str, field: FieldInfo) -> inspect.Parameter:
    default = "none" if field.default is None else field.default
    kind: Any = next((k for k in (bool, int, float) if k in (field.annotation, *get_args(field.annotation))), str)
    if get_origin(field.annotation) is Literal:
        kind = field.annotation
    elif str in get_args(field.annotation):  # a number or a word
        kind = str
    names = COMPLETED.get(name)
    about = typer.Option(
        help=f"{field.description} [{default}]",
        show_default=False,
        rich_help_panel=PANELS[name.rpartition(".")[0]],
        autocompletion=one_of(lambda: names) if names else None,
    )
    return inspect.Parameter(
        option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, about]
    )
