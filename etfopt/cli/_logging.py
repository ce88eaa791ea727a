"""The option --verbose of every command: the library logs, and the command line shows it."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

Command = TypeVar("Command", bound=Callable[..., Any])
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", help="Log every step to standard error.")]


class App(typer.Typer):
    """An application in which every command has the option --verbose."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Command], Command]:
        """Register a command."""
        register = super().command(name, **options)
        return lambda function: register(_logged(function))

    def callback(self, **options: Any) -> Callable[[Command], Command]:
        """Register what a group does by itself."""
        register = super().callback(**options)
        return lambda function: register(_logged(function))


def _logged(command: Command) -> Command:
    """Give a command the option --verbose."""

    @functools.wraps(command)
    def run(verbose: bool = False, **values: Any) -> Any:
        show_log(verbose)
        return command(**values)

    own = [*inspect.signature(command, eval_str=True).parameters.values()]
    option = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
    run.__signature__ = inspect.Signature([*own, option])  # type: ignore[attr-defined] # typer reads it
    run.__annotations__ = {p.name: p.annotation for p in [*own, option]}
    return run  # type: ignore[return-value] # it takes one option more


class _ToStandardError(logging.Handler):
    """Writes to what is standard error at the moment: a progress bar puts itself there, and lines go above it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


HANDLER = _ToStandardError()
HANDLER.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"))


def show_log(verbose: bool) -> None:
    """Show what the package logs: warnings, and everything else too if asked for by the command or its group."""
    logger = logging.getLogger("etfopt")
    logger.addHandler(HANDLER)  # once: logging compares handlers
    if verbose or not logger.level:
        logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
