"""The benchmark compares what it says: the same problems, both answers right, the infeasible named and not run."""

import itertools

import numpy as np

from etfopt.adjoint import kkt_memory
from etfopt.bench import pipelines as module
from etfopt.bench.pipelines import Case, bench
from etfopt.bench.problems import drifting_means
from etfopt.bench.timing import as_records
from etfopt.bench.units import STEPS_PER_SHAPE, units
from etfopt.plotting import draw_pipelines


def test_both_pipelines_answer_the_same_problems_alike():
    (row,) = bench([Case(12, 4, 3)])
    assert (row.d, row.C, row.steps) == (12, 4, 3)
    assert abs(row.gap) < 1e-14
    assert abs(row.paper_gap) < 1e-8
    assert row.gradient_error < 1e-3
    assert min(row.forward, row.backward, row.paper_forward, row.paper_backward, row.product, row.linear) > 0
    assert row.ratio > 0
    assert row.paper_memory >= 8 * 10 * 48  # at least the Jacobian of the constraints


def test_what_does_not_fit_is_reported_and_not_run(monkeypatch):
    monkeypatch.setattr(module, "MEMORY_LIMIT", 1000)
    monkeypatch.setattr(module, "kkt_vjp", None)
    (row,) = bench([Case(12, 4, 1)])
    assert row.paper_forward is row.paper_backward is row.ratio is row.gradient_error is None
    assert row.paper_memory == kkt_memory(12, 4)


def test_every_step_is_counted_and_every_row_has_the_same_keys():
    steps = itertools.count()
    rows = bench([Case(8, 3, 2), Case(9, 4, 1)], on_step=lambda: next(steps))
    assert next(steps) == 3
    first, second = as_records(rows)
    assert first.keys() == second.keys()


def test_the_means_drift_to_an_etf_and_repeat_with_the_seed():
    def distances(seed: int) -> list[float]:
        stream = drifting_means(12, 4, np.random.default_rng(seed))
        cosines = [H.T @ H * 4 for H in itertools.islice(stream, 120)]
        return [float(np.abs(c - (4 * np.eye(4) - 1) / 3).max()) for c in cosines]

    first = distances(1)
    assert first == distances(1)
    assert first[-1] < 0.1 < first[0]


def test_the_figure_has_a_line_for_the_paper_where_it_ran(monkeypatch):
    def labels(rows) -> list[str]:
        times = {name: [row.seconds[name] for row in rows] for name in rows[0].seconds}
        return [line.get_label() for line in draw_pipelines([(row.d, row.C) for row in rows], times).lines]

    assert labels(bench([Case(8, 3, 1)])) == ["closed form", "trust region, dense gradient", "linear layer, batch 256"]
    monkeypatch.setattr(module, "MEMORY_LIMIT", 0)
    assert labels(bench([Case(8, 3, 1)])) == ["closed form", "linear layer, batch 256"]


def test_the_methods_are_timed_on_the_same_problems_and_the_route_taken_is_told():
    steps = itertools.count()
    rows = units([(60, 8)], on_step=lambda: next(steps))
    assert next(steps) == STEPS_PER_SHAPE == 4
    assert len(rows) == 4 * 4
    for group in (rows[i : i + 4] for i in range(0, 16, 4)):
        assert {(row.spectrum, row.dtype) for row in group} == {(group[0].spectrum, group[0].dtype)}
        assert [row.method for row in group] == ["svd", "gram", "newton-schulz", "auto"]
        assert [row.route for row in group][:2] == ["svd", "gram"]
    assert all(min(row.forward, row.backward, row.square, row.product, row.linear) > 0 for row in rows)
    assert all(row.total == row.forward + row.backward for row in rows)
