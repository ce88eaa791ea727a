"""Peers are judged by exact answers: a wrong one has no ratio, a missing one no row, and one that fails stops none."""

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from etfopt import InputError
from etfopt.bench import _peer_rows, _peers, peers
from etfopt.bench._exact import polar_and_slope, product
from etfopt.bench._peer_problems import Case, PeerProblem
from etfopt.bench._peer_rows import measure
from etfopt.bench._peers import PEERS, Peer, line_up, tensors_to
from etfopt.bench.peers import TERMS, bench_peers, cases
from etfopt.bench.timing import blocks_in_turn
from tests.tools import digits
from tests.tools.promised import keys

WIDE = np.finfo(np.longdouble).eps
"""Some systems have no long double; the reference has then the digits of float64."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_peer_rows, "LEAST", 0.0)
    monkeypatch.setattr(_peer_rows, "REPEATS", 2)


# --- the exact answers ----------------------------------------------------------------------------------------------


def decimals(X: np.ndarray) -> np.ndarray:
    high = X.astype(np.float64)
    return digits.exact(high) + digits.exact((X - high).astype(np.float64))


def test_products_in_long_double_have_its_digits():
    rng = np.random.default_rng(0)
    X, Y = (
        rng.standard_normal(shape) / np.longdouble(3) * 10.0 ** rng.integers(-9, 9, shape)
        for shape in ((5, 40), (40, 3))
    )
    with digits.working():
        off = decimals(product(X, Y)) - decimals(X) @ decimals(Y)
        size = abs(X).astype(np.float64).max(1, keepdims=True) * abs(Y).astype(np.float64).max(0)
    assert (abs(digits.floats(off)) <= 40 * WIDE * size).all()


@pytest.mark.parametrize("spectrum", [(1, 0.5, 0.1, 1e-3), (1, 1, 1, 1e-6)])
def test_the_reference_has_more_digits_than_float64(spectrum: tuple[float, ...]):
    rng = np.random.default_rng(1)
    A = np.linalg.qr(rng.standard_normal((9, 4)))[0] * spectrum @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    G = rng.standard_normal((9, 4))
    U, slope = polar_and_slope(A.astype(np.longdouble), G)
    both = polar_and_slope(np.stack([G, A]).astype(np.longdouble), np.stack([G, G]))
    with digits.working():
        svd = digits.svd(digits.exact(A))
        right = digits.polar_derivative(svd, digits.exact(G))
        errors = [digits.norm(decimals(U) - svd.U), digits.norm(decimals(slope) - right) / digits.norm(right)]
    assert max(errors) < Decimal(float(30 * WIDE / spectrum[-1]))
    np.testing.assert_allclose(both[0][1], U, atol=1e-15)
    np.testing.assert_allclose(both[1][1], slope, rtol=1e-12)


# --- the problems ---------------------------------------------------------------------------------------------------


def test_every_shape_and_batch_is_there_in_both_dtypes():
    table = cases()
    assert {(case.d, case.C, case.batch) for case in table} == {
        (64, 10, 0), (512, 10, 0), (512, 100, 0), (2048, 1000, 0), (64, 10, 64), (32, 5, 1000),
    }  # fmt: skip
    assert {(case.dtype, case.spectrum) for case in table if case.C == 1000} == {
        (dtype, spectrum) for dtype in ("float32", "float64") for spectrum in ("random", "near collapse")
    }
    assert {case.term for case in table} == set(TERMS)
    assert len({case.name for case in table}) == len(table)
    assert set(cases(quick=True)) <= set(table)


@pytest.mark.parametrize("term", TERMS)
def test_errors_are_relative_and_do_not_see_what_is_free(term: str):
    problem = PeerProblem(Case(12, 4, term=term))
    U, slope = (X.astype(np.float64) for X in problem.exact)
    assert problem.right(problem.errors(U, slope))
    wrong = problem.errors(U, 1.01 * slope)
    assert wrong.derivative == pytest.approx(0.01)
    assert not problem.right(wrong)
    turned = U @ (np.eye(U.shape[1]) - 2 / U.shape[1] * np.ones((U.shape[1],) * 2))  # a reflection across 1
    assert problem.right(problem.errors(turned)) == (term == "rank-deficient")
    assert problem.errors(2 * U).orthonormality == pytest.approx(3 * np.sqrt(U.shape[1]))
    assert problem.errors(U, slope * np.nan).derivative == np.inf


# --- the rows -------------------------------------------------------------------------------------------------------


def fast_and_wrong(A):
    return A / A.norm(dim=-2, keepdim=True)


def failing(A):  # noqa: ARG001 - one signature for all peers
    raise ZeroDivisionError("of its own\nsecond line")


OWN = f"{__name__}:fast_and_wrong"


def rows_of(case: Case, *names: str) -> dict[str, peers.PeerRow]:
    return {row.peer: row for row in measure(PeerProblem(case), names, 1, 2.0)}


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("batch", [0, 3])
def test_every_peer_that_is_there_is_right_on_a_small_problem(term: str, batch: int):
    found = rows_of(Case(12, 4, term=term, batch=batch), *line_up()[0])
    for row in found.values():
        if row.right is None:
            assert batch or row.peer == "gram-newton-schulz" or row.note.startswith("refuses")
            continue
        assert row.distance < 1e-6, row
        assert row.forward > 0
        if row.peer == "etfopt" or term != "rank-deficient":  # where others may divide by zero, or by rounding
            assert row.right, row
            assert row.forward_ratio > 0
            assert (row.total is None) == (row.ratio is None) == (row.derivative is None)
    assert found["etfopt"].ratio == 1
    assert found["scipy.polar"].total is None
    assert (found["etfopt"].second is None) == (bool(batch) or term == "rank-deficient")


def test_a_fast_wrong_number_has_no_ratio():
    row = rows_of(Case(12, 4), OWN)[OWN]
    assert row.right is False
    assert row.distance > 1e-3
    assert row.forward > 0
    assert row.forward_ratio is None
    assert row.ratio is None


def test_where_etfopt_is_wrong_nobody_has_a_ratio(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_peers, "PEERS", {**PEERS, "etfopt": Peer(OWN, tensors_to(lambda polar: polar))})
    found = rows_of(Case(12, 4), "scipy.polar")
    assert found["scipy.polar"].right
    assert [row.forward_ratio for row in found.values()] == [None, None]


def test_at_collapse_autograd_through_an_svd_is_right_in_u_and_wrong_in_its_derivative():
    found = rows_of(Case(12, 4, spectrum="collapse"), "torch.linalg.svd")
    row = found["torch.linalg.svd"]
    assert row.forward_ratio is not None
    assert row.right is False
    assert row.ratio is None
    assert row.second_right is False
    assert found["etfopt"].second_right


def test_a_peer_that_fails_is_a_row_and_the_others_go_on():
    name = f"{__name__}:failing"
    found = rows_of(Case(12, 4), name, "scipy.polar")
    assert found[name].failed
    assert found[name].note == "fails: ZeroDivisionError: of its own"
    assert found["scipy.polar"].right


def test_a_slow_peer_is_timed_once():
    row = measure(PeerProblem(Case(12, 4)), ["scipy.polar"], 1, 1e-9)[1]
    assert row.note == "timed once"
    assert row.forward_ratio > 0


def test_what_is_not_installed_is_listed_and_what_is_unknown_refused(monkeypatch: pytest.MonkeyPatch):
    gone = {"gone": Peer("no_such_package:polar", tensors_to(lambda polar: polar)),
            "older": Peer("torch:linalg.no_such", tensors_to(lambda polar: polar))}  # fmt: skip
    monkeypatch.setattr(_peers, "PEERS", {**PEERS, **gone})
    there, missing = line_up()
    assert "torch.linalg.svd" in there
    assert missing["gone"] == "not installed"
    assert missing["older"].startswith(f"not in torch {torch.__version__.partition('+')[0]}")
    with pytest.raises(InputError, match=r"peer = 'spline' is not known; choose one of: etfopt, torch\.linalg\.polar"):
        line_up(["spline"])
    with pytest.raises(InputError, match="there is no module no_such_package"):
        line_up(["no_such_package:polar"])


def test_blocks_follow_the_rounds_and_the_limit():
    calls = []
    taken = blocks_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert {name: len(times) for name, times in taken.items()} == {"a": 3, "b": 3}
    assert calls.count("a") > 30
    taken = blocks_in_turn({"a": lambda: calls.append("c")}, repeats=3, most=0.0, known={"a": 10.0})
    assert len(taken["a"]) == calls.count("c") == 1


# --- the whole ------------------------------------------------------------------------------------------------------


def test_every_number_of_threads_has_a_process_of_its_own_and_parts_follow():
    found = list(bench_peers([Case(8, 3)], ["scipy.polar"], [("distance", "64 x 10")], [1], 0.01))
    assert [[row.threads for row in rows] for rows in found] == [[1, 1], [1]]
    assert found[1][0].ratio > 0
    with pytest.raises(InputError, match="threads must be an integer of at least 1; got 0"):
        next(bench_peers([], [], threads=[0]))


def test_the_command_writes_numbers_and_a_picture_and_fails_where_a_peer_does(tmp_path: Path, monkeypatch):
    runner = pytest.importorskip("typer.testing").CliRunner()
    pytest.importorskip("matplotlib")
    from etfopt.cli import app

    def run(_problems, names, parts, threads, limit, device):
        assert parts == []
        return [measure(PeerProblem(Case(12, 4)), names, threads[0], limit, device)]

    monkeypatch.setattr(peers, "bench_peers", run)
    numbers, picture = tmp_path / "peers.json", tmp_path / "peers.svg"
    words = [
        "bench",
        "peers",
        "--quick",
        "--only",
        "torch.linalg.svd",
        "--json",
        str(numbers),
        "--figure",
        str(picture),
    ]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    document = json.loads(numbers.read_text())
    assert {"torch", "processor", "threads", "device", "date"} <= document["conditions"].keys()
    assert [row["peer"] for row in document["rows"]] == ["etfopt", "torch.linalg.svd"]
    assert picture.read_text().startswith("<?xml")
    assert "Forward and backward, over etfopt" in done.output
    assert isinstance(runner.invoke(app, words).exception, InputError)  # the files are there
    empty = runner.invoke(app, ["bench", "peers", "--only", "distance", "--figure", str(tmp_path / "none.svg")])
    assert "would be empty" in str(empty.exception)
    printed = runner.invoke(app, ["bench", "peers", "--only", f"{__name__}:failing", "--threads", "1", "--json", "-"])
    assert printed.exit_code == 1
    assert json.loads(printed.stdout)["rows"][1]["failed"]
    assert keys("bench peers") <= json.loads(printed.stdout).keys()
