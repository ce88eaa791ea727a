"""What a comparison comes to: profiles checked by hand, medians of cost and the worst of quality."""

import math

from etfopt.bench._measure import FLOOR, Row, Status
from etfopt.bench.report import write_report
from etfopt.bench.summary import performance_profile, ratios, summarise


def row(solver="a", problem="p", seed=0, seconds=1.0, gap=0.0, **more) -> Row:
    status = Status.CERTIFIED if gap <= 1e-10 else Status.NOT_OPTIMAL
    shape = {"family": "f", "d": 4, "C": 3, "r": 3, "delta": 0.0, "dtype": "float64", "feasible": True}
    values = {"status": status, "seconds": seconds, "relative_gap": gap, **shape, **more}
    return Row(problem=problem, solver=solver, seed=seed, **values)


def test_performance_profiles_by_hand():
    times = {"a": (1.0, 2.0, 4.0), "b": (2.0, 1.0, None), "c": (4.0, 4.0, 2.0)}
    table = [
        row(s, f"p{k}", seconds=t or 1.0, gap=0.0 if t else 1.0) for s, ts in times.items() for k, t in enumerate(ts)
    ]
    found = ratios(table, 1e-8)
    assert found == {"a": [1, 2, 2], "b": [2, 1, math.inf], "c": [4, 4, 1]}
    assert performance_profile(found["a"]) == ([1, 2], [1 / 3, 1])
    assert performance_profile(found["b"]) == ([1, 2], [1 / 3, 2 / 3])
    assert performance_profile(found["c"]) == ([1, 4], [1 / 3, 1])
    assert performance_profile([math.inf, math.inf]) == ([], [])


def test_a_direct_solver_counts_for_every_start_and_the_clock_stops_at_the_common_accuracy():
    table = [
        row("direct", seed=None, seconds=2.0),
        row("local", seed=0, seconds=8.0, trace=((1.0, 1e-3), (6.0, 1e-9), (8.0, FLOOR))),
        row("local", seed=1, seconds=9.0, gap=1e-3),
    ]
    assert ratios(table, 1e-8) == {"direct": [1, 1], "local": [3, math.inf]}
    assert ratios(table, 1e-2) == {"direct": [2, 1], "local": [1, 4.5]}
    nobody = [row("a", gap=1.0), row("b", gap=1.0)]
    assert ratios(nobody, 1e-8) == {"a": [math.inf], "b": [math.inf]}


def test_the_summary_takes_medians_of_cost_and_the_worst_of_quality():
    table = [
        row(seed=0, seconds=1.0, gap=1e-12, iterations=3, etf_distance=1e-6),
        row(seed=1, seconds=5.0, gap=1e-3, iterations=4, etf_distance=0.5, termination="GRADIENT_TOLERANCE"),
        row(seed=2, seconds=2.0, gap=-1e-16, iterations=9, etf_distance=1e-7),
    ]
    (line,) = summarise(table)
    assert (line.runs, line.certified, line.reason) == (3, 2, "gradient tolerance")
    assert (line.fastest, line.seconds, line.slowest, line.iterations) == (1, 2, 5, 4)
    assert (line.relative_gap, line.etf_distance) == (1e-3, 0.5)
    (nothing,) = summarise([row(status=Status.REFUSED, seconds=None, gap=math.inf, relative_gap=None)])
    assert (nothing.seconds, nothing.certified, nothing.reason) == (None, 0, "refused")


def test_figures_are_drawn_where_nothing_was_solved(tmp_path):
    unsolved = [row("sleeps", status=Status.TIME_LIMIT, seconds=None, relative_gap=None, feasible=None)]
    for path in write_report(unsolved, [], {}, tmp_path)[1:]:
        assert path.read_bytes().startswith(b"\x89PNG")
