"""temperature="auto": the formula of the theory, and heads that collapse to the confidence asked for."""

import contextlib
import math

import numpy as np
import pytest

from etfopt import InputError, frames, simplex_etf

torch = pytest.importorskip("torch")
from etfopt.frames import orthogonal, orthoplex, polygon, reduced, seli
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead, collapse_temperature, frame_temperature
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


@pytest.mark.parametrize("C", [2, 3, 10, 242, 1000])
def test_the_temperature_of_a_simplex_is_the_same_to_the_bit(C):
    assert frame_temperature(C, reduced(C).largest_cosine) == collapse_temperature(C)
    assert frame_temperature(C, -1 / (C - 1), 0.9) == collapse_temperature(C, 0.9)
    assert frame_temperature(C, -1 / (C - 1) + 1e-14) == pytest.approx(collapse_temperature(C), rel=1e-12)


@pytest.mark.parametrize("frame", [orthogonal(6), orthoplex(4, 7), orthoplex(5, 10), polygon(9), reduced(6)], ids=repr)
def test_a_frame_gives_every_class_the_confidence(frame):
    tau = frame_temperature(frame.C, frame.largest_cosine, 0.95)
    logits = torch.tensor(tau * frame.vectors.T @ frame.vectors)
    assert 0.95 - 1e-12 <= logits.softmax(dim=1).diagonal().min() < 0.99


def test_a_pair_gives_every_class_the_confidence():
    pair = seli([100, 30, 30, 4])
    tau = frame_temperature(4, 1 - pair.logit_gap, 0.95)
    logits = torch.tensor(tau * 2 * pair.F_H.vectors.T @ pair.F_W.F)
    confidence = logits.softmax(dim=1).diagonal()
    assert confidence.min() == pytest.approx(0.95, abs=1e-12)  # all leads of a class are equal
    assert confidence.max() > 0.96


@pytest.mark.parametrize("cosine", [1.0, 1.5, -0.34, math.nan, math.inf])
def test_what_is_no_largest_cosine_is_refused(cosine):
    with pytest.raises(
        InputError, match=r"largest_cosine of C = 4 vectors lies between -1/\(C-1\) = -0\.333 and 1; got"
    ):
        frame_temperature(4, cosine)


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


FRAMES = {
    "a simplex of any size and shape": (3 * simplex_etf(4, reduced=True), collapse_temperature(4)),
    "orthogonal vectors": (torch.eye(4), frame_temperature(4, 0.0)),
    "a named frame": ("polygon", frame_temperature(4, 0.0)),
    "a Frame": (frames.orthoplex(3, 4 + 1), frame_temperature(5, 0.0)),
    "vectors of any length: that of a simplex": (torch.eye(4) + torch.eye(4)[0], collapse_temperature(4)),
    "a pair": (frames.seli([9, 3, 3, 1]), frame_temperature(4, 1 - frames.seli([9, 3, 3, 1]).logit_gap)),
}


@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead])
@pytest.mark.parametrize("case", FRAMES)
def test_auto_is_the_temperature_of_the_frame(make, case):
    frame, wanted = FRAMES[case]
    C = 5 if case == "a Frame" else 4
    assert make(6, C, temperature="auto", frame=frame).temperature == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead])
@pytest.mark.parametrize(("C", "frame"), [(40, "best"), (13, "polygon"), (7, "seli")])
def test_on_any_frame_every_class_of_a_collapsed_network_has_the_confidence_at_least(make, C, frame):
    counts = np.arange(1, C + 1) if frame == "seli" else None
    head = make(24, C, frame=frame, counts=counts, dtype=torch.float64)
    means = head.frame / head.frame.norm(dim=0)
    features = (head.U @ means).mT * head.temperature
    p = (features @ head.weight.mT).softmax(dim=1).diagonal().min()
    assert float(p) >= 0.9664 - 1e-12
    if frame == "polygon":
        assert float(p) < 0.9999


@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead])
def test_a_temperature_that_is_too_small_for_the_frame_warns(make):
    with pytest.warns(UserWarning, match=r"temperature = 5 is small for 13 classes.*'auto': that is 51"):
        make(24, 13, frame="polygon", temperature=5.0)
    twice = torch.eye(3)[:, [0, 1, 2, 0]]
    with pytest.raises(InputError, match="needs a frame in which the right class has the largest logit"):
        make(24, 4, frame=twice)
    with pytest.warns(UserWarning, match="Pass a frame whose vectors differ"):
        make(24, 4, frame=twice, temperature=5.0)


@pytest.mark.parametrize("make", HEADS)
def test_the_default_is_auto_but_for_the_statistics_of_the_paper(make):
    assert make(8, 6).temperature == (5.0 if "paper" in make.__name__ else collapse_temperature(6))


@pytest.mark.parametrize("make", HEADS)
def test_a_temperature_of_one_is_for_dot_regression_and_no_reason_to_warn(make):
    assert make(1000, 1000, temperature=1.0).temperature == 1.0
