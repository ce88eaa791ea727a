"""The command that solves one problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from etfopt.cli import _solution_tables as tables
from etfopt.cli._app import AsJson, hand_over, one_of
from etfopt.cli._lists import classes, names_a_file, numbers
from etfopt.errors import InputError

if TYPE_CHECKING:
    from etfopt._arrays import Array

__all__ = ["solve"]


def solve(
    means: Annotated[
        Path, typer.Argument(metavar="MEANS", help="Class means H, d x C, one column a class: .npy, .npz or .csv.")
    ],
    key: Annotated[str | None, typer.Option(help="The array of an .npz that holds H. [the only one]")] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="Read the rows of the file as classes.")] = False,
    reduced: Annotated[
        bool, typer.Option("--reduced", help="Use the (C-1) x C simplex, which needs d = C-1 only.")
    ] = False,
    frame: Annotated[
        str | None,
        typer.Option(
            help="Frame to rotate: a name, a file that etfopt frame --out wrote, or package.module:function. [simplex]",
            autocompletion=one_of(_frames),
        ),
    ] = None,
    solver: Annotated[
        str,
        typer.Option(
            help="procrustes, the closed form; an iterative solver such as trust-region; or package.module:name.",
            autocompletion=one_of(_solvers),
        ),
    ] = "procrustes",
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Skip the first row of a .csv, or read it. [detected]"),
    ] = None,
    index: Annotated[
        bool | None,
        typer.Option("--index/--no-index", help="Skip the first column of a .csv, or read it. [detected]"),
    ] = None,
    prox: Annotated[Path | None, typer.Option(help="File with the proximal point, d x r.")] = None,
    prox_key: Annotated[str | None, typer.Option(help="The array of an .npz that holds it. [the only one]")] = None,
    delta: Annotated[
        float | None,
        typer.Option(help="Weight of the proximal term; above 0 it needs --prox. [0.001 with --prox, else 0]"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights of the classes, as 1,1,2,0 or in a file; 0 for an absent class. [1 each]"),
    ] = None,
    hold: Annotated[
        str | None, typer.Option(help="Classes whose vertices keep their place, as 0,3,5-9; needs --hold-at. [none]")
    ] = None,
    hold_at: Annotated[
        Path | None,
        typer.Option(help="File with these vertices: one that --out wrote, or U, d x r (.npy, .csv)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Save U, the ETF and the weights here (.npz).")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the simplex ETF nearest to class means, and certify it.

    The first line is the verdict. Exit status 1 means that the certificate rejects the answer; nothing is saved then.

    ```
    etfopt solve means.npy --out nearest.npz
    etfopt solve classes_in_rows.csv --transpose
    etfopt solve frame.csv --header --no-index
    etfopt solve means.npz --key H --prox previous.npy --delta 0.001 --json
    etfopt solve means.npy --frame best --weights counts.npy
    etfopt solve means.npy --solver trust-region
    etfopt solve more.npy --reduced --hold 0-9 --hold-at nearest.npz
    ```
    """
    from etfopt import NearestETF
    from etfopt import solve as solve_problem
    from etfopt.files import load_matrix, refuse_as_output, save_solution
    from etfopt.solvers import SOLVERS, as_solver

    SOLVERS.checked(solver, "--solver")  # before anything slow

    if out is not None:
        refuse_as_output(out, [Path(file) for file in _files(means, prox, hold_at, weights, frame)])
    names = {"header": header, "index": index}
    try:
        H = load_matrix(means, key, **names)
        H = H.T if transpose else H
        start = None if prox is None else load_matrix(prox, prox_key, **(names if _is_csv(prox) else {}))
        problem = NearestETF(
            H,
            prox=start,
            delta=delta,
            frame=_frame_of(frame) if frame is not None and names_a_file(frame) else frame,
            reduced=reduced,
            weights=None if weights is None else numbers(weights, "weights", "1,1,2,0"),
            hold=None if hold is None else classes(hold, "hold"),
            hold_at=None if hold_at is None else load_matrix(hold_at, _key(hold_at, "U")),
        )
    except InputError as error:
        raise _for_the_shell(error, {"H": means, "prox": prox, "hold_at": hold_at}) from error
    method = as_solver(solver)
    solution = solve_problem(problem, method, throw=False)
    if out is not None and solution.converged:
        save_solution(solution, out)
    wrote = [] if out is None else [f"wrote {out}" if solution.converged else f"{out} was not written"]
    shown: list[RenderableType] = [
        tables.verdict(solution, method.gap_tolerance(problem)),
        tables.solution_table(solution),
    ]
    hand_over(tables.facts(solution), shown, wrote, as_json)
    if not solution.converged:
        raise typer.Exit(1)


def _frames() -> Iterable[str]:
    from etfopt.frames import FRAMES

    return FRAMES


def _solvers() -> Iterable[str]:
    from etfopt.solvers import SOLVERS

    return SOLVERS


def _files(*given: Path | str | None) -> list[Path | str]:
    """Return what names a file among values of options."""
    return [value for value in given if value is not None and (isinstance(value, Path) or names_a_file(value))]


def _frame_of(path: str) -> Array:
    """Read a frame; of a pair, the one for class means."""
    from etfopt.files import load_matrix

    try:
        return load_matrix(path, _key(path, "F"))
    except InputError as error:
        if "F_H" not in str(error):
            raise
        return load_matrix(path, "F_H")


def _key(path: Path | str, name: str) -> str | None:
    """Return the name of an array in an .npz that etfopt wrote."""
    return name if Path(path).suffix.lower() == ".npz" else None


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _for_the_shell(error: InputError, files: Mapping[str, Path | None]) -> InputError:
    """Name the file, and the option in place of the argument."""
    message, argument, remedy = str(error.args[0]), error.argument or "", error.remedy
    if argument in ("header", "index"):
        remedy = f"pass --{argument} or --no-{argument}"
    elif argument == "key" and error.value is None:
        remedy = "name one with --key, or --prox-key"
    elif argument in ("weights", "hold", "frame") and message.startswith(argument):
        message = f"--{message}"
    elif argument == "hold_at" and files["hold_at"] is None:
        message, remedy = f"--{message}", "give --hold-at, a file that etfopt solve --out wrote"
    elif argument == "delta":
        message = f"--{message}"
        remedy = remedy and "give --prox, a d x r matrix"
    elif argument in files:
        message = f"{files[argument]}: {message}"
        d, C = getattr(error.value, "shape", (0, 0))
        if argument == "H" and d < C:
            smaller = f"--reduced works with d = {d}. " if d == C - 1 else "--frame best works with any d >= 2. "
            remedy = f"{smaller}Columns of H are classes: if its rows are, use --transpose"
    return InputError(message, argument=argument, value=error.value, remedy=remedy)
