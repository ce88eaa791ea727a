"""What the command line prints of benchmarks and runs: every number that was measured, and what could not run."""

import math

import pytest

pytest.importorskip("rich")
from rich.console import Console
from rich.table import Table

from etfopt._bench_tables import node_costs, pipelines, unit_costs
from etfopt._tables import spreads
from etfopt.bench.pipelines import Row
from etfopt.bench.units import UnitRow


def lines(table: Table) -> list[str]:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def line(table: Table, start: str) -> list[str]:
    """The cells of the row that begins so."""
    return next([cell.strip() for cell in text.split("│")[1:-1]] for text in lines(table) if f" {start} " in text)


def test_a_pipeline_that_cannot_run_is_said_to():
    common = {"d": 512, "steps": 3, "forward": 1e-3, "backward": 2e-3, "memory": 2048, "gap": 0.0}
    common |= {"product": 1e-4, "linear": 5e-6}
    ran = Row(C=10, paper_forward=1.5, paper_backward=0.5, ratio=667.0, paper_memory=3 * 2**30, **common,
              paper_gap=1e-12, gradient_error=1e-9)  # fmt: skip
    large = Row(C=100, paper_forward=None, paper_backward=None, ratio=None, paper_memory=5 * 2**50, **common,
                paper_gap=None, gradient_error=None)  # fmt: skip
    table = pipelines([ran, large], {"threads": 2, "load": 0.1234})
    assert line(table, "10") == ["512", "10", "3 ms", "2 s", "667 x", "2 KiB", "3 GiB", "5 µs"]
    assert line(table, "100") == ["512", "100", "3 ms", "cannot run", "-", "2 KiB", "5,120 TiB", "5 µs"]
    assert "threads 2, load 0.123" in lines(table)[-1]


def test_a_method_that_handed_over_shows_the_route_that_served():
    common = {"d": 64, "C": 8, "dtype": "float32", "spectrum": "random", "forward": 3e-3, "backward": 1e-3}
    common |= {"square": 1e-3, "product": 2e-3, "linear": 4e-3}
    rows = [UnitRow(method=method, route=route, **common) for method, route in (("gram", "gram"), ("auto", "svd"))]
    table = unit_costs(rows)
    cells = ["3 ms", "1 ms", "4", "2", "1"]
    assert line(table, "gram") == ["64 x 8, random", "float32", "gram", *cells]
    assert line(table, "auto (svd)") == ["", "", "auto (svd)", *cells]  # the problem is named once


def test_the_node_is_tabulated_in_units_of_a_product_and_a_layer():
    node = pytest.importorskip("etfopt.bench.node")
    row = node.NodeRow(64, 8, "random", "cpu", forward=2.0, total=6.0, product=1.5, linear=3.0, memory=4.25)
    cells = ["64 x 8, random", "auto", "2 s", "6 s", "4", "2", "4.2"]
    assert line(node_costs([row], {"device": "cpu"}), "64 x 8, random") == cells


def test_an_epoch_that_was_never_reached_is_more_than_all_of_them():
    report = pytest.importorskip("etfopt.experiments.report")
    rest = dict.fromkeys(report.QUANTITIES, report.Spread(0.5, 1e-5, 2.0))
    table = spreads({"nearest": {**rest, "epochs_to_99": report.Spread(math.inf, 7, math.inf)}}, "digits", epochs=30)
    text = "\n".join(lines(table))
    assert ">30" in text
    assert "7 to >30" in text
    assert "1.0e-05 to 2.000" in text
