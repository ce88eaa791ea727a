"""temperature="auto": the formula of the theory, and heads that collapse to the confidence asked for."""

import contextlib
import math

import pytest

from etfopt import InputError, simplex_etf

torch = pytest.importorskip("torch")
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead, collapse_temperature
from tests.tools.head_cases import HEADS
from theory import temperature as theory


@pytest.mark.parametrize("C", [2, 3, 10, 100, 242, 1000])
@pytest.mark.parametrize("p", [0.51, 0.9664, 0.999])
def test_the_formula_is_that_of_the_theory(C, p):
    assert collapse_temperature(C, p) == pytest.approx(theory.temperature(C, p), rel=1e-12)


def test_the_default_is_the_papers_temperature_for_ten_classes():
    assert collapse_temperature(10) == pytest.approx(5, abs=1e-3)
    assert math.exp(-theory.bound(242, 5.0)) == pytest.approx(0.387, abs=1e-3)
    assert math.exp(-theory.bound(1000, 5.0)) == pytest.approx(0.129, abs=1e-3)
    assert [theory.bound(C, 5.0) for C in (10, 242, 1000)] == pytest.approx([0.034, 0.95, 2.041], abs=5e-3)


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize(("C", "p"), [(3, 0.9), (40, 0.9664), (242, 0.5)])
def test_a_collapsed_network_has_the_confidence_that_was_asked_for(make, C, p):
    warned = pytest.warns(UserWarning, match=rf"small for {C} classes.*probability of {p} only.*'auto'")
    with warned if p < 0.9 else contextlib.nullcontext():  # 0.9 itself is no reason to warn
        head = make(C, C, temperature=collapse_temperature(C, p))
    if make is LearnedHead:
        with torch.no_grad():
            head.rows.copy_(torch.tensor(simplex_etf(C)))
    # collapsed: the features lie along the rows, wherever the head has them
    features, labels = head.weight.clone(), torch.arange(C)
    head(features, labels)
    probabilities = head.eval()(features).softmax(dim=1)[labels, labels]
    torch.testing.assert_close(probabilities, torch.full((C,), p), rtol=1e-4, atol=0)


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize(
    ("temperature", "message"),
    [
        ("Auto", r"temperature must be a real number or 'auto'; got 'Auto'"),
        (1e16, r"temperature must be at most 1e\+15"),
    ],
)
def test_what_is_no_temperature_is_refused(make, temperature, message):
    with pytest.raises(InputError, match=message):
        make(6, 4, temperature=temperature)


@pytest.mark.parametrize(
    ("confidence", "message"),
    [
        (0.25, r"confidence must lie between 1/num_classes = 0\.25.*got 0\.25"),
        (1.0, r"confidence must lie between.*and 1; got 1"),
        (math.nan, r"confidence must be"),
        ("high", r"confidence must be a real number"),
    ],
)
def test_what_is_no_confidence_is_refused(confidence, message):
    with pytest.raises(InputError, match=message):
        collapse_temperature(4, confidence)


@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead])
def test_auto_is_for_simplex_frames_of_any_size_and_shape_only(make):
    reduced = 3 * torch.tensor(simplex_etf(4, reduced=True))
    assert make(6, 4, temperature="auto", frame=reduced).temperature == collapse_temperature(4)
    make(6, 4, temperature=4.0, frame=torch.eye(4))
    with pytest.raises(InputError, match="known for simplex frames only"):
        make(6, 4, temperature="auto", frame=torch.eye(4))


@pytest.mark.parametrize("make", HEADS)
def test_the_default_is_auto_but_for_the_statistics_of_the_paper(make):
    assert make(8, 6).temperature == (5.0 if "paper" in make.__name__ else collapse_temperature(6))


@pytest.mark.parametrize("make", HEADS)
def test_a_temperature_of_one_is_for_dot_regression_and_no_reason_to_warn(make):
    assert make(1000, 1000, temperature=1.0).temperature == 1.0
