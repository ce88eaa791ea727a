r"""Problems to measure on: families that are hard in different ways, by name, and class means of a real network.

``digits_means.npz`` holds centred class means of the training split after 0, 1, 5, 20 and 60 epochs, shape
(5, 64, 10), of one run of ``etfopt train --data digits --head learned --seed 0 --epochs 60``:
``train(TrainConfig(head=HeadConfig(name="learned")), path).class_means[[0, 1, 5, 20, 60]]``. The data are the optical
digits of Alpaydin and Kaynak (1998), UCI Machine Learning Repository, CC BY 4.0, as shipped with scikit-learn.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from etfopt._arrays import Array, Float64Array, Seed, as_generator, as_matrix
from etfopt.errors import InputError, nearest
from etfopt.files import load_matrix
from etfopt.frames import simplex_etf
from etfopt.geometry import random_stiefel
from etfopt.polar import polar_factor
from etfopt.problem import NearestETF

__all__ = ["FAMILIES", "NamedProblem", "choose_problems", "drifting_means", "from_means", "problem_grid"]

DELTA = 1e-3
"""The paper's proximal weight."""

KAPPA = 1e6
"""Condition number of the ill-conditioned means, on the space of centred columns."""

NOISE = 1e-3
"""Norm of the noise on collapsed means, relative to their norm."""

IMBALANCE = 100
"""Samples of the most frequent class over those of the rarest."""

DRIFT = 20
"""Steps of the drifting sequence before the proximal problem is taken from it."""

SMALL, MEDIUM, LARGE = (16, 4), (64, 10), (512, 47)

DIGITS = Path(__file__).with_name("digits_means.npz")


@dataclass(frozen=True, eq=False)
class NamedProblem:
    """A problem, its name, and the family it belongs to.

    Attributes
    ----------
    name : str
        Unique in the grid.
    family : str
        One of `FAMILIES`, or that of the user's own files.
    problem : NearestETF
        The problem itself.
    """

    name: str
    family: str
    problem: NearestETF


def random(d: int, C: int, rng: np.random.Generator) -> NearestETF:
    """Independent normal entries: the start of training, and the easy case."""
    return from_means(rng.standard_normal((d, C)))


def collapsed(d: int, C: int, rng: np.random.Generator) -> NearestETF:
    """Collapse, the end of training: a simplex ETF and a little noise. The singular values of A nearly coincide."""
    noise = rng.standard_normal((d, C)) / np.sqrt(d * C)
    return from_means(random_stiefel(d, C, rng) @ simplex_etf(C) + NOISE * noise)


def rank_deficient(d: int, C: int, rng: np.random.Generator) -> NearestETF:
    """H of rank (C-1)/2: many ETFs are equally near, and the minimisers form a manifold."""
    k = max(1, (C - 1) // 2)
    return from_means(rng.standard_normal((d, k)) @ rng.standard_normal((k, C)))


def imbalanced(d: int, C: int, rng: np.random.Generator) -> NearestETF:
    """Means of long-tailed classes: an ETF, each column off by the error of a mean of n_c samples, n_c geometric.

    The error is 0.3 of the column in the most frequent class, the first, and 3 times the column in the rarest.
    """
    error = 3 / np.sqrt(C) * IMBALANCE ** (-0.5 * np.linspace(1, 0, C))
    return from_means(random_stiefel(d, C, rng) @ simplex_etf(C) + rng.standard_normal((d, C)) / np.sqrt(d) * error)


def ill_conditioned(d: int, C: int, rng: np.random.Generator) -> NearestETF:
    """Singular values in geometric progression down to 1e-6 of the largest."""
    spectrum = np.geomspace(1, 1 / KAPPA, C - 1)
    directions = np.sqrt(C - 1) * random_stiefel(C - 1, C - 1, rng) @ simplex_etf(C, reduced=True)
    return from_means(random_stiefel(d, C - 1, rng) * spectrum @ directions)


def square(d: int, C: int, rng: np.random.Generator) -> NearestETF:  # noqa: ARG001 - one signature for all families
    """D = C. The frame leaves a direction of U free, so that both components of O(C) hold minimisers."""
    return random(C, C, rng)


def square_proximal(d: int, C: int, rng: np.random.Generator) -> NearestETF:  # noqa: ARG001 - as above
    """D = C with the proximal term, which fixes that direction: only one component of O(C) holds the minimiser."""
    return proximal(C, C, rng)


def tight(d: int, C: int, rng: np.random.Generator) -> NearestETF:  # noqa: ARG001 - as above
    """D = C-1 with the reduced frame, the least that a simplex needs: again one component holds the minimiser."""
    return from_means(rng.standard_normal((C - 1, C)), frame=simplex_etf(C, reduced=True))


def proximal(d: int, C: int, rng: np.random.Generator) -> NearestETF:
    """Pose a training step as the paper does: delta = 1e-3, and the previous step's solution as proximal point."""
    means = drifting_means(d, C, rng)
    *_, previous, H = (next(means) for _ in range(DRIFT))
    return from_means(H, prox=polar_factor(previous @ simplex_etf(C)), delta=DELTA)


FAMILIES: dict[str, Callable[[int, int, np.random.Generator], NearestETF]] = {
    "random": random,
    "collapsed": collapsed,
    "rank-deficient": rank_deficient,
    "imbalanced": imbalanced,
    "ill-conditioned": ill_conditioned,
    "proximal": proximal,
    "square": square,
    "square-proximal": square_proximal,
    "tight": tight,
}
"""Families by name: each makes a problem of C classes in d dimensions from a generator."""

LONG = ("ill-conditioned-512x47",)
"""Run only when asked for by name: a trust region takes a quarter of a minute for each start."""


def from_means(H: ArrayLike, prox: Array | None = None, delta: float = 0.0, frame: Array | None = None) -> NearestETF:
    """Return the problem for class means as the paper prepares them: centred, then scaled to norm 1."""
    H = as_matrix(H, "H")
    centred = H - H.mean(axis=1, keepdims=True)
    norm = float(np.linalg.norm(centred))
    return NearestETF(centred / norm if norm > 0 else centred, prox, delta, frame)


def problem_grid(quick: bool = False) -> list[NamedProblem]:
    """Return every problem of the grid, or the small ones of it; each is drawn from a seed of its own name."""
    shapes = (SMALL,) if quick else (SMALL, MEDIUM, LARGE)
    grid = [_drawn(family, d, C) for family in FAMILIES for d, C in shapes]
    with np.load(DIGITS) as saved:
        means = list(zip(saved["epochs"], saved["class_means"], strict=True))
    chosen = means[-1:] if quick else means
    return grid + [NamedProblem(f"digits-epoch-{epoch}", "digits", from_means(H)) for epoch, H in chosen]


def _drawn(family: str, d: int, C: int) -> NamedProblem:
    seed = zlib.crc32(f"{family}-{d}x{C}".encode())
    problem = FAMILIES[family](d, C, np.random.default_rng(seed))
    return NamedProblem(f"{family}-{problem.d}x{problem.C}", family, problem)


def choose_problems(names: Sequence[str] = (), files: Sequence[Path] = (), quick: bool = False) -> list[NamedProblem]:
    """Return the problems of the grid that are named, and those of the user's own class means.

    Parameters
    ----------
    names : sequence of str
        Problems or whole families. Without any, the grid but for what takes long, or only `files` where there are some.
    files : sequence of Path
        Class means, d x C, one column a class. With d = C-1 the reduced frame is used.
    quick : bool
        Only the small problems.

    Returns
    -------
    list of NamedProblem
        Problems in the grid's order, files last.

    Raises
    ------
    InputError
        If a name is unknown (the known ones are listed), or a file cannot be used.
    """
    grid = problem_grid(quick and not names)
    taken = Counter([path.stem for path in files] + [entry.name for entry in grid])
    own = [_read(path, path.stem if taken[path.stem] == 1 else str(path)) for path in dict.fromkeys(files)]
    known = {key for entry in grid for key in (entry.name, entry.family)}
    for name in names:
        if name not in known:
            families = ", ".join([*FAMILIES, "digits"])
            raise InputError(
                f"problem = {name!r} is not known; {nearest(name, known)}choose a family ({families}) or one of: "
                f"{', '.join(entry.name for entry in grid)}"
            )
    if names:
        wanted = [p for p in grid if p.name in names or (p.family in names and p.name not in LONG)]
        return wanted + own
    return own or [p for p in grid if p.name not in LONG]


def _read(path: Path, name: str) -> NamedProblem:
    try:
        H = load_matrix(path)
    except InputError as error:
        raise InputError(str(error).partition(", or say which")[0]) from error  # there is no option to say so
    tight = H.ndim == 2 and H.shape[0] == H.shape[1] - 1 and H.shape[1] >= 2
    frame = simplex_etf(H.shape[1], reduced=True) if tight else None
    try:
        # a family of its own, so that each file has a panel in the figure
        return NamedProblem(name, name, from_means(H, frame=frame))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def drifting_means(d: int, C: int, rng: Seed) -> Iterator[Float64Array]:
    """Yield class means of norm 1 that drift from random ones towards a simplex ETF, as in training."""
    rng = as_generator(rng, "rng")
    target = random_stiefel(d, C, rng) @ simplex_etf(C)
    H = rng.standard_normal((d, C))
    H -= H.mean(axis=1, keepdims=True)
    while True:
        H /= np.linalg.norm(H)
        yield H.copy()
        noise = rng.standard_normal((d, C)) / np.sqrt(d * C)
        H = 0.95 * H + 0.05 * target + 0.02 * (noise - noise.mean(axis=1, keepdims=True))
