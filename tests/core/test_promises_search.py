"""A search that climbs over the promises on accuracy: it mutates the problems that have come nearest to breaking one.

By default some hundred problems, the same ones each time. ``PROMISES_SECONDS=300`` searches for so long (of processor
time, for each dtype), from the seed ``PROMISES_SEED``, and ``pytest -s`` prints the worst of each promise and method. A
recipe that breaks a promise belongs into `FOUND`, with what was mended.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from tests.tools import digits, oracles

pytest.importorskip("torch")

from tests.tools.promise_cases import Recipe, built, drawn, mutated
from tests.tools.promise_measures import METHODS, Reference, measured

SECONDS = float(os.environ.get("PROMISES_SECONDS", "0"))
SEED = int(os.environ.get("PROMISES_SEED", "18"))
CASES = 300
"""Problems that are tried where no time is given."""

DTYPES = [np.float32, np.float64]


def multiples(recipe: Recipe) -> dict[tuple[str, str], float]:
    """What each method is off by in each promise, over what is promised; empty for what is no problem."""
    case = built(recipe)
    if case is None:
        return {}
    with digits.working():
        reference = Reference(case)
        names = [name for name in METHODS if recipe.weights == 0 or name.startswith("core")]
        return {(name, what): x for name in names for what, x in measured(reference, name).items()}


@dataclass
class Search:
    """The worst multiple of each method and promise, with its recipe."""

    dtype: type
    worst: dict[tuple[str, str], tuple[float, Recipe]] = field(default_factory=dict)
    tried: int = 0

    def run(self, rng: np.random.Generator) -> None:
        start = time.process_time()
        while self.tried < CASES if not SECONDS else time.process_time() - start < SECONDS:
            recipe = self._next(rng)
            found = multiples(recipe)
            self.tried += bool(found)
            for key, multiple in found.items():
                if key not in self.worst or multiple > self.worst[key][0]:
                    self.worst[key] = multiple, recipe

    def _next(self, rng: np.random.Generator) -> Recipe:
        if not self.worst or rng.random() < 0.4:
            return drawn(rng, self.dtype)
        keys = list(self.worst)
        return mutated(self.worst[keys[rng.integers(len(keys))]][1], rng)

    def lines(self) -> Iterator[str]:
        columns = list(dict.fromkeys(what for _, what in self.worst))
        yield f"\n{np.dtype(self.dtype)}, {self.tried} problems".ljust(30) + "".join(f"{x:>14}" for x in columns)
        for name in METHODS:
            values = [self.worst.get((name, what), (np.nan,))[0] for what in columns]
            yield name.ljust(29) + "".join(f"{x:14.2g}" for x in values)


@pytest.mark.timeout(300 + 4 * SECONDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_promise_is_broken_by_a_problem_that_a_climbing_search_finds(dtype):
    search = Search(dtype)
    search.run(np.random.default_rng(SEED))
    print("\n".join(search.lines()))
    assert {key: found for key, found in search.worst.items() if not found[0] <= 1} == {}


# --- found by the search ------------------------------------------------------------------------------------------


BASE = Recipe(
    **{"dtype": np.float32, "frame": "free", "C": 2, "rows": 2, "extra": 5, "factors": "random"},
    **{"spectrum": "generic", "kappa": 1.0, "cluster": -3.0, "prox": "none", "weight": 0.0, "prox_size": 0.0},
    **{"cancels": False, "scale": 0.0, "frame_size": 0.0, "mean": -99.0, "cotangent": 0.0, "seed": 1, "nudge": 0},
)
FOUND = {
    "a null direction beside equal singular values, which LAPACK mixes": replace(
        BASE, **{"dtype": np.float64, "frame": "simplex", "C": 5, "extra": 0, "spectrum": "equal", "seed": 1790671270}
    ),
    "what A leaves free was filled from dependent vectors": replace(
        BASE,
        **{"frame": "simplex", "C": 5, "extra": 0, "factors": "helmert", "spectrum": "one large", "cancels": True},
        **{"kappa": 1.0478653850504758, "cluster": -6.717367474639413, "prox": "off the manifold"},
        **{"weight": 5.597516103627921, "prox_size": -11.975768798001122, "scale": -27.232864312522715},
        seed=1485727886,
    ),
    "a common mean whose rounding the paper's frame saw": replace(
        BASE,
        **{"dtype": np.float64, "frame": "simplex", "C": 4, "extra": 1, "factors": "hadamard", "mean": 9.9},
        **{"spectrum": "clustered", "cluster": -2.36, "seed": 1023203622, "nudge": 545746321},
    ),
    "a delta beyond the range of single precision": replace(
        BASE,
        **{"prox": "opposite", "weight": 9.100312946102253, "prox_size": -3.6061850401297453},
        **{"scale": 36.15777498376691, "frame_size": 7.693857583084213, "seed": 509248560},
    ),
    "a delta that is subnormal": replace(
        BASE,
        **{"dtype": np.float64, "frame": "tight", "rows": 1, "extra": 1, "factors": "hadamard", "cancels": True},
        **{"prox": "off the manifold", "weight": -0.10857556908552406, "prox_size": 75.84843431220794},
        **{"scale": -241.02579900132787, "frame_size": -4.583703790829101, "seed": 1524111562},
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_once_broke_a_promise_does_so_no_more(what):
    found = multiples(FOUND[what])
    assert found
    assert {key: x for key, x in found.items() if not x <= 1} == {}


# --- the reference ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, 0.7, 1e-13], [1.0, 1.0 + 1e-15, 0.5]])
def test_the_reference_agrees_with_sixty_digits_of_another_kind(values, rng):
    A = np.linalg.qr(rng.standard_normal((5, 3)))[0] * values @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    G = rng.standard_normal((5, 3))
    U, _, s = oracles.exact_polar(oracles.exact(A))
    slope = oracles.rounded(oracles.exact_polar_derivative(oracles.exact(A), oracles.exact(G)))
    with digits.working():
        found = digits.svd(digits.exact(A))
        derivative = digits.floats(digits.polar_derivative(found, digits.exact(G)))
        left = digits.floats(found.P * found.s @ found.Q.T - digits.exact(A))
    assert np.abs(left).max() < 1e-80
    np.testing.assert_allclose(digits.floats(found.U), oracles.rounded(U), rtol=0, atol=1e-15)
    np.testing.assert_allclose(digits.floats(found.s), [float(x) for x in s[::-1]], rtol=1e-15)
    np.testing.assert_allclose(derivative, slope, rtol=1e-14, atol=1e-15 * np.abs(slope).max())


def test_the_reference_finds_the_null_space_of_a_matrix_that_has_one():
    with digits.working():
        assert digits.svd(digits.exact(np.ones((5, 3)))).rank == 1
        assert digits.svd(digits.exact(np.zeros((5, 3)))).rank == 0
