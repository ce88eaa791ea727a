"""A comparison is fair and complete: a row for every cell whatever happens in it, one start, nothing cached."""

import dataclasses
import json
import math
import multiprocessing
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from etfopt import InputError, MissingExtraError, certify, random_stiefel, solve
from etfopt.bench import compare as module
from etfopt.bench import lineup
from etfopt.bench._measure import FLOOR, Cell, Row, Status, measure
from etfopt.bench.compare import cells, compare
from etfopt.bench.lineup import Entrant, line_up
from etfopt.bench.problems import NamedProblem, choose_problems
from etfopt.bench.report import write_report
from etfopt.solvers import SOLVERS, as_solver
from etfopt.solvers.procrustes import Procrustes
from tests.tools import stub_solvers as stub

PROBLEM = choose_problems(["random-16x4"])[0]
STUBS = {
    "echo": stub.Stub(),
    "raises": stub.Raises(),
    "refuses": stub.Refuses(),
    "sleeps": stub.Sleeps(),
    "dies": stub.Dies(),
    "other echo": stub.Stub(),
}


@pytest.fixture(scope="module")
def entrants() -> list[Entrant]:
    known = line_up(["procrustes", "trust-region", "conjugate-gradient", "clarabel"])[0]
    return known + [Entrant(name, solver, local=True) for name, solver in STUBS.items()]


@pytest.fixture(scope="module")
def rows(entrants) -> list[Row]:
    grid = cells([PROBLEM], entrants, seeds=2)
    return list(compare(grid, limit=0.2))


def test_every_cell_has_its_row_and_direct_solvers_run_once(rows, entrants):
    expected = {(e.name, seed) for e in entrants for seed in ((0, 1) if e.local else (None,))}
    assert {(r.solver, r.seed) for r in rows} == expected
    assert len(rows) == len(expected)


@pytest.mark.parametrize(
    ("solver", "status", "message"),
    [
        ("procrustes", Status.CERTIFIED, ""),
        ("trust-region", Status.CERTIFIED, ""),
        ("clarabel", Status.CERTIFIED, ""),
        ("echo", Status.NOT_OPTIMAL, ""),
        ("raises", Status.FAILED, "ArithmeticError: out of luck"),
        ("refuses", Status.REFUSED, "not this one"),
        ("sleeps", Status.TIME_LIMIT, "stopped: more than 0.2 s on this problem"),
        ("dies", Status.FAILED, "the process ended with exit status 3"),
    ],
)
def test_whatever_a_solver_does_is_a_row_and_the_others_go_on(rows, solver, status, message):
    found = [r for r in rows if r.solver == solver]
    assert found
    for r in found:
        assert (r.status, r.message) == (status, message)
        answered = status in (Status.CERTIFIED, Status.NOT_OPTIMAL)
        assert answered == (r.seconds is not None) == (r.relative_gap is not None)


def test_answers_are_close_in_uf_and_say_how_they_ended(rows):
    for solver in ("procrustes", "trust-region", "clarabel"):
        for r in (r for r in rows if r.solver == solver):
            assert r.etf_distance < 1e-6
            assert r.relative_stationarity < 1e-6
            assert r.repeats >= 1
    assert all(r.repeats > 1 for r in rows if r.solver == "procrustes")  # in microseconds
    assert {r.termination for r in rows if r.solver == "trust-region"} == {"GRADIENT_TOLERANCE"}


def test_local_solvers_of_a_cell_start_from_the_same_random_point(rows):
    gaps = {(r.solver, r.seed): r.relative_gap for r in rows}
    for seed in (0, 1):
        start = random_stiefel(16, 4, np.random.default_rng(seed))
        expected = certify(PROBLEM.problem, start).relative_gap
        assert gaps["echo", seed] == gaps["other echo", seed] == expected
        first = next(r for r in rows if (r.solver, r.seed) == ("conjugate-gradient", seed)).trace[0]
        assert first[1] == pytest.approx(expected, rel=1e-12)
    assert gaps["echo", 0] != gaps["echo", 1]


def test_solvers_are_innermost_so_that_a_slow_spell_meets_all(entrants):
    grid = cells([PROBLEM, *choose_problems(["tight-3x4"])], entrants, seeds=2)
    order = [(cell.problem.name, cell.seed or 0) for cell in grid]
    assert [pair for pair, before in zip(order, [None, *order], strict=False) if pair != before] == [
        ("random-16x4", 0),
        ("random-16x4", 1),
        ("tight-3x4", 0),
        ("tight-3x4", 1),
    ]


def test_the_problem_is_new_for_every_run():
    cell = Cell(PROBLEM, Entrant("cold", stub.ColdOnly()), None)
    PROBLEM.problem.scaled_linear_term  # noqa: B018 - what an earlier solver leaves behind
    done = measure(cell)
    assert done.repeats > 1
    assert done.status is Status.NOT_OPTIMAL, done.message


def test_the_first_call_of_a_process_is_not_on_the_clock():
    (done,) = compare([Cell(PROBLEM, Entrant("slow at first", stub.FirstCallIsSlow()), None)], limit=10)
    assert done.seconds < 0.4


def test_warnings_become_the_message_and_infeasible_points_are_not_certified():
    assert measure(Cell(PROBLEM, Entrant("warns", stub.Warns(), local=True), 0)).message == "mind the gap"
    done = measure(Cell(PROBLEM, Entrant("infeasible", stub.Infeasible()), None))
    assert done.relative_gap < 0
    assert done.status is Status.NOT_OPTIMAL
    assert done.seconds_to(1e-4) == math.inf


def test_there_is_no_distance_where_the_etf_is_not_unique():
    (deficient,) = choose_problems(["rank-deficient-16x4"])
    assert measure(Cell(deficient, Entrant("procrustes", Procrustes()), None)).etf_distance is None


def test_the_trace_is_thinned_without_losing_when_a_gap_was_reached():
    best = solve(PROBLEM.problem).U
    problem = NamedProblem("p", "f", PROBLEM.problem)
    excess = (0.5, 0.45, 0.3, 0.31, 2e-3, 1.9e-3, 5e-7, 0.0)
    cell = Cell(problem, Entrant("traced", Fixed(best, excess)), None)
    done = measure(cell)
    kept = [round(seconds * 1e9) for seconds, _ in done.trace[:-1]]
    assert kept == [0, 2, 4, 6, 7]  # 0.45 and 1.9e-3 lie in the same quarter of a decade as what came before
    assert done.trace[-1] == (done.seconds, max(done.relative_gap, FLOOR))  # what the certificate says of the answer
    assert done.seconds_to(1e-2) == pytest.approx(4e-9)
    assert done.seconds_to(1e-6) == pytest.approx(6e-9)


@dataclasses.dataclass(frozen=True)
class Fixed(stub.Traced):
    U: object = None

    def __init__(self, U, excess):
        object.__setattr__(self, "U", U)
        object.__setattr__(self, "excess", excess)

    def run(self, problem, _start=None):
        return super().run(problem, self.U)


def test_a_solver_stops_itself_within_the_limit_and_shares_it_among_its_starts():
    once, twice, first_order = line_up(["trust-region", "trust-region-restart", "steepest-descent"], limit=6.0)[0]
    assert once.solver.max_seconds == first_order.solver.max_seconds == 6
    assert twice.solver.max_seconds == 3


def test_a_solver_that_hangs_on_the_tiny_problem_is_a_row(monkeypatch):
    monkeypatch.setattr(module, "WARM_UP_LIMIT", 0.2)
    (done,) = compare([Cell(PROBLEM, Entrant("hangs", stub.Hangs()), None)], limit=10)
    assert (done.status, done.message) == (Status.TIME_LIMIT, "stopped: more than 0.2 s on a tiny problem")


def test_a_comparison_that_is_broken_off_leaves_no_process():
    grid = cells([PROBLEM], [Entrant("echo", stub.Stub(), local=True)], seeds=5)

    def broken_off():
        with closing(compare(grid, limit=5)) as running:
            next(running)
            assert len(multiprocessing.active_children()) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert not multiprocessing.active_children()


def test_the_file_is_strict_json_with_the_same_keys_everywhere(rows, entrants, tmp_path):
    numbers, *figures = write_report(
        [*rows, dataclasses.replace(rows[0], relative_gap=math.nan)], entrants, {"limit": 0.2}, tmp_path
    )
    document = json.loads(numbers.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document["conditions"]["numpy"] == np.__version__
    for part in ("rows", "summary", "solvers"):
        assert len({tuple(entry) for entry in document[part]}) == 1
    assert [r["status"] for r in document["rows"][:-1]] == [r.status.value for r in rows]
    parameters = {entry["name"]: entry["parameters"] for entry in document["solvers"]}
    assert parameters["trust-region"]["gradient_tolerance"] == 1e-9
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert len(figures) == 2


def test_unknown_solvers_and_impossible_settings_are_refused(entrants):
    with pytest.raises(InputError, match=r"solver = 'simplex' is not known; choose one of: procrustes, pro"):
        line_up(["procrustes", "simplex"])
    with pytest.raises(InputError, match="limit must be finite and above 0; got 0"):
        line_up(limit=0)
    with pytest.raises(InputError, match="seeds must be an integer of at least 1; got 0"):
        cells([PROBLEM], entrants, 0)


def test_a_solver_whose_extra_is_missing_is_left_out_unless_it_was_asked_for(monkeypatch):
    def without_scs(path, **options):
        if options.get("backend") == "SCS":
            raise MissingExtraError("cvxpy is not installed; run: pip install 'etfopt[convex]'")
        return as_solver(path, **options)

    monkeypatch.setattr(lineup, "as_solver", without_scs)
    found, left_out = line_up()
    assert "scs" not in [entrant.name for entrant in found]
    assert left_out == ["scs is left out: cvxpy is not installed; run: pip install 'etfopt[convex]'"]
    with pytest.raises(MissingExtraError, match="pip install"):
        line_up(["scs"])


def test_every_solver_of_the_registry_is_compared_by_default():
    used = {lineup.VARIANTS.get(name, (name,))[0] for name in lineup.ENTRANTS}
    assert used == set(SOLVERS)


MINE = """
from dataclasses import dataclass
from etfopt import polar_factor
from etfopt.solvers.base import Candidate, Solver, Stats, Termination

@dataclass(frozen=True)
class Mine(Solver):
    max_seconds: float = 1.0

    def gap_tolerance(self, problem):
        return 1e-8

    def run(self, problem, initial_point=None):
        U = polar_factor(problem.linear_term)
        return Candidate(U, Termination.CLOSED_FORM, Stats("Mine", 0.0))

@dataclass(frozen=True)
class Needy(Mine):
    needs: int = 3

    def __init__(self, needs):
        pass

patient = Mine(max_seconds=60.0)
nothing = 3
"""


def test_a_solver_of_ones_own_takes_part_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "own_solver.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    entrants, left_out = line_up(["own_solver:Mine", "own_solver:patient", "procrustes"], limit=5.0)
    assert [(e.name, e.local) for e in entrants] == [
        ("own_solver:Mine", False),
        ("own_solver:patient", False),
        ("procrustes", False),
    ]
    assert left_out == []
    assert entrants[1].solver.max_seconds == 5.0
    rows = list(compare(cells([PROBLEM], entrants, seeds=2), limit=5.0))
    assert [row.status for row in rows] == [Status.CERTIFIED] * 3
    for name, message in [("nothing", "is not a Solver; pass"), ("Needy", "missing 1 required .*name an instance")]:
        with pytest.raises(InputError, match=f"solver = 'own_solver:{name}'.*{message}"):
            line_up([f"own_solver:{name}"])
    assert solve(PROBLEM.problem, "own_solver:patient").stats.solver == "Mine"


def test_the_command_finds_a_solver_in_the_working_folder(tmp_path):
    pytest.importorskip("typer")
    (tmp_path / "own_solver.py").write_text(MINE)
    command = [sys.executable, "-P", "-c", "from etfopt.cli import main; main()", "compare", "--json"]
    command += ["--problem", "tight-3x4", "--solver", "own_solver:Mine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in json.loads(done.stdout)["rows"]] == ["certified"]
