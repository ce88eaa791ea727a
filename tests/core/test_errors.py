"""An error says argument, value and remedy, in words and as fields, also after a journey between processes."""

import copy
import pickle

import numpy as np
import pytest

import etfopt
from etfopt import InputError, NearestETF, nearest_etf
from etfopt.errors import choices


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_fields_of_an_error_travel_with_it(travel):
    error = travel(InputError("H is empty", argument="H", value=(), remedy="pass a matrix"))
    assert (error.argument, error.value, error.remedy) == ("H", (), "pass a matrix")
    assert str(error) == "H is empty; pass a matrix"
    assert error.args == ("H is empty",)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        *(("neerest", "nearest"), ("NEAREST", "nearest"), ("Orthplex", "orthoplex"), ("a.rat", "a.rate")),
        *(("best", ""), ("1411", ""), (None, ""), ("a.speed", "")),
    ],
)
def test_the_nearest_name_is_offered_and_only_if_it_is_near(typed, offered):
    known = ["nearest", "learned", "orthoplex", "1410", "a.rate", "a.name"]
    question = f"did you mean {offered!r}? " if offered else ""
    assert choices(typed, known) == f"{question}choose one of: {', '.join(known)}"


CASES = {
    "a vector": ("H", lambda: NearestETF(np.ones(3)), None),
    "NaN": ("H", lambda: NearestETF(np.full((3, 2), np.nan)), "remove or replace them"),
    "too few features": ("H", lambda: NearestETF(np.eye(3, 5)), "a simplex of C = 5"),
    "delta": ("delta", lambda: NearestETF(np.eye(3), delta=1.0), "pass prox of shape (3, 3), or delta=0"),
    "prox": ("prox", lambda: NearestETF(np.eye(3), prox=np.eye(2)), None),
    "frame": ("frame", lambda: NearestETF(np.eye(3), frame=np.zeros((3, 3))), "pass a frame with a non-zero entry"),
    "solver": ("solver", lambda: nearest_etf(np.eye(3), solver=3), "pass an instance such as Procrustes()"),
    "problem": ("problem", lambda: etfopt.solve(np.eye(3)), "for class means H use etfopt.nearest_etf(H)"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_error_names_argument_value_and_remedy_once(case):
    argument, call, remedy = CASES[case]
    with pytest.raises(InputError) as caught:
        call()
    error = caught.value
    assert error.argument == argument
    assert error.value is not None
    assert (error.remedy or "").startswith(remedy or "")
    assert error.remedy is None or str(error).count(error.remedy) == 1


MOVED = [
    *(("etfopt.geometry", name) for name in ("SVD", "feasibility", "simplex_etf", "sym", "thin_svd")),
    *(("etfopt.solvers.relaxation", name) for name in ("ConvexRelaxation", "RelaxationStats")),
    *(("etfopt.solvers.trust_region", name) for name in ("ConjugateGradient", "SteepestDescent")),
]


@pytest.mark.parametrize(("module", "name"), MOVED)
def test_a_name_of_release_0_1_still_works_and_says_where_it_is_now(module, name):
    pytest.importorskip("pymanopt")
    pytest.importorskip("cvxpy")
    found = pytest.importorskip(module)
    with pytest.warns(DeprecationWarning, match=rf"{module}.{name} has moved; use: from etfopt\.[\w.]+ import {name}"):
        assert callable(getattr(found, name))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        found.nothing  # noqa: B018
