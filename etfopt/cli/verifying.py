"""The command that checks the theory."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

import etfopt
from etfopt._scalars import as_integer
from etfopt.cli import _tables as tables
from etfopt.cli._app import AsJson, Quiet, hand_over, interruptible, one_of, progress
from etfopt.errors import InputError, choices, require_extra

if TYPE_CHECKING:
    from theory.registry import Claim, Evidence

__all__ = ["find_registry", "verify"]


def verify(
    claim: Annotated[
        list[str] | None,
        typer.Option(
            help="Check this claim alone (simplex, duality, ...); may be given again. [all]",
            autocompletion=one_of(lambda: find_registry(None).CLAIMS),
        ),
    ] = None,
    budget: Annotated[int, typer.Option(help="Cases for each claim.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the cases.")] = 0,
    case: Annotated[
        str | None, typer.Option("--case", help="Run one case of one claim, PART:SEED, and print all that it finds.")
    ] = None,
    theory: Annotated[
        Path | None, typer.Option(help="The folder theory/ of a checkout. [next to the package, or here]")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check every claim of theory/ on adversarial cases, and print the worst case of each.

    Exit status 1 means that a claim fails. A claim draws the same cases alone or with the others. All claims take about
    two minutes on two cores.

    ```
    etfopt verify
    etfopt verify --claim certificate --claim gradient --budget 100
    etfopt verify --claim gradient --case PART:SEED  # a failure prints both
    ```
    """
    as_integer(budget, "budget", at_least=1)
    as_integer(seed, "seed", at_least=0)
    registry = find_registry(theory)
    names = _chosen(claim, registry.CLAIMS)
    if case is not None:
        _replay(registry, names if claim else (), case, as_json)
        return
    start = time.perf_counter()
    found: list[tuple[Claim, Evidence]] = []

    def kept() -> str:
        rest = " ".join(f"--claim {name}" for name in names[len(found) :])
        checked = f"{len(found)} of {len(names)} claims were checked; nothing is written by this command"
        return f"{checked}. To go on: etfopt verify {rest}"

    with interruptible(kept), progress(len(names), quiet or as_json, unit="claims") as step:
        for one in map(registry.load, names):
            found.append((one, registry.verify(one, budget, seed)))
            step()
    table = tables.verdicts(found, f"{time.perf_counter() - start:.0f} s, seed {seed}")
    document = {"seed": seed, "budget": budget, "claims": [tables.verdict(*row) for row in found]}
    hand_over(document, [table], tables.counterexamples(found), as_json)
    if not all(evidence.holds for _, evidence in found):
        raise typer.Exit(1)


def _chosen(wanted: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the claims asked for, in the order of the registry."""
    for name in wanted or ():
        if name not in known:
            raise InputError(f"--claim = {name!r} is not known", "claim", name, choices(name, known))
    return tuple(name for name in known if not wanted or name in wanted)


def _replay(registry: Any, names: tuple[str, ...], case: str, as_json: bool) -> None:
    """Run one case again and print all its residuals."""
    part, _, seed = case.rpartition(":")
    if len(names) != 1 or not part or not seed.isdecimal():
        raise InputError(f"--case = {case!r} must be PART:SEED, as a failure prints it, with one --claim beside it")
    one = registry.load(names[0])
    parts = [known.name for known in one.parts]
    if part not in parts:
        raise InputError(f"--case = {case!r}: {one.id} has no part {part!r}; choose one of: {', '.join(parts)}")
    residuals = registry.replay(one, part, int(seed))
    document = {"claim": one.id, "part": part, "seed": int(seed), "residuals": [one._asdict() for one in residuals]}
    hand_over(document, [tables.residuals(residuals, f"{one.id}, {part}, seed {seed}")], [], as_json)
    if not all(residual.value <= residual.tolerance for residual in residuals):
        raise typer.Exit(1)


def find_registry(folder: Path | None) -> ModuleType:
    """Import ``theory.registry``, which lies beside the package in a checkout and is not part of the installed one.

    It is looked for in the folder; if none is given, beside the package and in the working directory.
    """
    require_extra("theory", "mpmath", "sympy", "torch", "pymanopt", "autograd")
    candidates = [folder] if folder else [Path(etfopt.__file__).parents[1] / "theory", Path("theory")]
    found = next((path.resolve() for path in candidates if (path / "registry.py").is_file()), None)
    if found is None or found.name != "theory":
        raise InputError(
            f"{folder or 'theory/'}: not a folder `theory` with the claims; the installed package does not have it. "
            f"Clone the repository, or unpack the source distribution of etfopt {etfopt.__version__} "
            f"(pip download --no-deps --no-binary etfopt etfopt=={etfopt.__version__}), and run `etfopt verify` there "
            "or name the folder with --theory"
        )
    sys.path.insert(0, str(found.parent))
    try:
        module = importlib.import_module("theory.registry")
    finally:
        sys.path.remove(str(found.parent))
    return module
