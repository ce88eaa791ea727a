"""What a claim is, what counts as evidence for it, and the list of all claims.

A claim is a module of this folder. Its docstring is Markdown with LaTeX: the title, then the sections ``Statement``,
``Assumptions``, ``Proof``, ``In the code`` and ``References``. Its `PARTS` are functions that draw one case from a
random generator and yield what was found there, each with the tolerance it is held to; ``check(rng, budget)`` spreads
a number of cases over them. Every case has a generator of its own, so that it can be run again from its seed alone.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from etfopt._arrays import Seed, as_generator
from etfopt._scalars import as_integer

__all__ = [
    "CLAIMS",
    "Case",
    "Claim",
    "Evidence",
    "Part",
    "Residual",
    "at_least",
    "claims",
    "gather",
    "load",
    "replay",
    "verify",
]

CLAIMS = (
    "simplex",
    "orthoplex",
    "delsarte",
    "closed_form",
    "weights",
    "held",
    "growth",
    "duality",
    "certificate",
    "gauge",
    "landscape",
    "gradient",
    "near_collapse",
    "conditioning",
    "free_scale",
    "envelope",
    "temperature",
    "seli",
    "unconstrained_features",
    "fading",
    "class_sums",
)
"""Names of the modules, in the order in which they build on one another."""

SECTIONS = ("Statement", "Assumptions", "Proof", "In the code", "References")
SEEDS = 2**63


class Residual(NamedTuple):
    """How far a statement is from true in one case, at most `tolerance` if it holds; NaN never holds."""

    value: float
    tolerance: float
    what: str


def at_least(observed: float, bound: float, what: str) -> Residual:
    """Return the residual of ``observed >= bound > 0``: their inverse ratio, at most 1."""
    return Residual(bound / observed if observed > 0 else math.inf, 1.0, what)


class Part(NamedTuple):
    """One kind of case, and the share of the budget that it gets in proportion to the other parts."""

    draw: Callable[[np.random.Generator], Iterator[Residual]]
    share: float = 1.0

    @property
    def name(self) -> str:
        """Name of the function, by which a case is run again."""
        return self.draw.__name__.strip("_")


@dataclass(frozen=True)
class Case:
    """The residual that came nearest to its tolerance, or went furthest beyond, in one case.

    Part and seed repeat it.
    """

    part: str
    seed: int
    residual: float
    tolerance: float
    what: str

    @property
    def ratio(self) -> float:
        """Residual over tolerance, at most 1 where it holds; infinite where it is NaN."""
        if self.tolerance > 0 and not math.isnan(self.residual):
            return self.residual / self.tolerance
        return -math.inf if self.holds else math.inf

    @property
    def holds(self) -> bool:
        """Whether the residual is within its tolerance."""
        return self.residual <= self.tolerance


@dataclass(frozen=True)
class Evidence:
    """What the cases showed: their number and the worst of them."""

    cases: int
    worst_case: Case

    @property
    def worst(self) -> float:
        """Residual of the worst case."""
        return self.worst_case.residual

    @property
    def tolerance(self) -> float:
        """What that residual was allowed to be."""
        return self.worst_case.tolerance

    @property
    def holds(self) -> bool:
        """Whether no case contradicts the claim."""
        return self.worst_case.holds

    @property
    def counterexample(self) -> Case | None:
        """The worst case if it contradicts the claim."""
        return None if self.holds else self.worst_case


@dataclass(frozen=True)
class Claim:
    """A statement with its proof, both Markdown with LaTeX, and the checks that could refute it."""

    id: str
    title: str
    statement: str
    assumptions: str
    proof: str
    used_in: str
    references: str
    parts: tuple[Part, ...]
    check: Callable[[np.random.Generator, int], Evidence]


def gather(rng: Seed, budget: int, parts: Sequence[Part]) -> Evidence:
    """Draw about `budget` cases, at least one of every part, and keep the worst."""
    rng = as_generator(rng, "rng")
    total = sum(part.share for part in parts)
    worst: Case | None = None
    cases = 0
    for part in parts:
        for seed in rng.integers(SEEDS, size=max(1, round(budget * part.share / total))):
            case = _worst_of(part, int(seed))
            cases += 1
            if worst is None or case.ratio > worst.ratio:
                worst = case
    assert worst is not None, "a claim without parts has no evidence"
    return Evidence(cases, worst)


def _worst_of(part: Part, seed: int) -> Case:
    """Run one case; one that breaks down or looks at nothing is a counterexample, not a crash."""
    try:
        found = [
            Case(part.name, seed, float(value), float(tolerance), what)
            for value, tolerance, what in part.draw(np.random.default_rng(seed))
        ]
    except Exception as error:  # whatever it is, the statement was not confirmed
        found = [Case(part.name, seed, math.nan, 0.0, f"{type(error).__name__}: {error}")]
    return max(
        found, key=lambda case: case.ratio, default=Case(part.name, seed, math.nan, 0.0, "nothing was looked at")
    )


def load(name: str) -> Claim:
    """Return the claim that the module of that name makes."""
    module = importlib.import_module(f"theory.{name}")
    text = inspect.cleandoc(module.__doc__ or "")
    title, *rest = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    sections = dict(zip(rest[::2], (body.strip() for body in rest[1::2]), strict=True))
    if tuple(sections) != SECTIONS or not all(sections.values()):
        raise ValueError(f"theory.{name} must have the sections {SECTIONS}, none empty; it has {tuple(sections)}")
    statement, assumptions, proof, used_in, references = (sections[heading] for heading in SECTIONS)
    title = " ".join(title.split()).rstrip(".")
    return Claim(name, title, statement, assumptions, proof, used_in, references, module.PARTS, module.check)


def claims() -> list[Claim]:
    """Return all claims."""
    return [load(name) for name in CLAIMS]


def verify(claim: Claim, budget: int, seed: int) -> Evidence:
    """Check a claim on cases that depend on its name and a seed, not on which others are checked with it."""
    as_integer(seed, "seed", at_least=0)
    return claim.check(np.random.default_rng([seed, *claim.id.encode()]), budget)


def replay(claim: Claim, part: str, seed: int) -> list[Residual]:
    """Run one case again and return all that it finds; a KeyError if the claim has no such part."""
    as_integer(seed, "seed", at_least=0)
    by_name = {part.name: part for part in claim.parts}
    return list(by_name[part].draw(np.random.default_rng(seed)))
