"""What the command line prints of benchmarks and runs: every number that was measured, and what could not run."""

import math
import re

import numpy as np
import pytest

pytest.importorskip("rich")
from rich.console import Console
from rich.table import Table

import etfopt
from etfopt.bench.pipelines import Row
from etfopt.bench.standings import Standings
from etfopt.bench.summary import Summary, summarise
from etfopt.bench.units import UnitRow
from etfopt.cli._bench_tables import (
    comparison,
    head_costs,
    loop_accuracies,
    node_costs,
    overall,
    pipelines,
    statistics_costs,
    unit_costs,
)
from etfopt.cli._peer_tables import answers, overview, surroundings
from etfopt.cli._solution_tables import solution_table
from etfopt.cli._tables import EIGHT, measures, spreads, summary, verdicts


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
    (table,) = unit_costs(rows)
    cells = ["3 ms", "1 ms", "4", "2", "1"]
    shown = [re.split(r"\s{2,}", text.strip()) for text in lines(table)]
    assert "64 x 8, random" in " ".join(lines(table)[:2])
    assert ["float32 gram", *cells] in [[" ".join(row[:2]), *row[2:]] for row in shown]
    assert ["auto (svd)", *cells] in shown  # the dtype is named once


def test_the_node_is_tabulated_in_units_of_a_product_and_a_layer():
    node = pytest.importorskip("etfopt.bench.node")
    row = node.NodeRow(64, 8, "random", "cpu", forward=2.0, total=6.0, product=1.5, linear=3.0, memory=4.25)
    text = next(text for text in lines(node_costs([row], {"device": "cpu"})) if "64 x 8, random" in text)
    assert text.split() == ["64", "x", "8,", "random", "auto", "2", "s", "6", "s", "4", "2", "4.2"]


def test_the_cost_of_running_statistics_is_shown_beside_the_papers():
    cost = pytest.importorskip("etfopt.bench.head")
    table = statistics_costs([cost.StatisticsRow(128, 512, 100, "cpu", running=2e-3, paper=1.6e-3, ratio=1.25)])
    assert line(table, "128 x 512") == ["128 x 512", "100", "2 ms", "1.6 ms", "1.250 x"]


def test_a_loop_shows_the_median_and_the_range_of_each_head():
    loops = pytest.importorskip("etfopt.bench.loops")
    rows = [
        loops.LoopRow("128x1", "accumulation", head, (0.5, 0.25, 0.9999), 0.5, 0.25, 0.9999, 1.0, ())
        for head in ("learned", "nearest")
    ]
    text = [line.split() for line in lines(loop_accuracies(rows, {"seeds": 3}))]
    assert ["128x1", "50.0", "50.0"] in text
    assert ["accumulation", "25.0-100", "25.0-100"] in text


def peer_rows():
    peers = pytest.importorskip("etfopt.bench.peers")
    case = peers.Case(2048, 1000, "float64", "near collapse", "rank-deficient")
    errors = {"orthonormality": 1e-15, "distance": 2e-15, "right": True}
    return [
        peers.PeerRow.of(case, "etfopt", 2, "cpu", forward=2.34e-3, total=4.56e-3, forward_ratio=1.0, ratio=1.0,
                         **errors, derivative=3e-15, second=1e-9, second_right=True),
        peers.PeerRow.of(case, "torch.linalg.polar", 2, "cpu", forward=3e-3, total=1e-3, forward_ratio=1.5, **errors,
                         derivative=math.inf, second=0.2, second_right=False),
        peers.PeerRow.of(case, "scipy.procrustes", 2, "cpu", forward=0.1234, forward_ratio=250.0, **errors),
        peers.PeerRow.of(case, "roma", 2, "cpu", note="not asked"),
        peers.PeerRow.of(case, "paper", 2, "cpu", note="fails: MemoryError: much", failed=True),
    ]  # fmt: skip


def test_a_wrong_answer_stands_in_place_of_its_ratio_and_a_dash_for_what_there_is_not():
    (table,) = answers(peer_rows())
    words = [text.split() for text in lines(table) if text.strip()]
    shown = {name: rest for name, *rest in words if len(rest) > 7 and rest[0][0].isdigit()}
    assert shown["etfopt"] == ["2.34", "ms", "1.00", "4.56", "ms", "1.00", "1e-15", "2e-15", "3e-15", "1e-09"]
    assert shown["torch.linalg.polar"] == ["3", "ms", "1.50", "1", "ms", "wrong", "1e-15", "2e-15", "inf", "wrong"]
    assert shown["scipy.procrustes"] == ["123", "ms", "250", "-", "-", "1e-15", "2e-15", "-", "-"]
    assert "roma" not in "\n".join(lines(table))
    assert "paper fails: MemoryError: much" in "\n".join(lines(table))
    (table,) = overview(peer_rows())
    assert next(text for text in lines(table) if "2048" in text).split()[-2:] == ["2", "wrong"]


def test_an_epoch_that_was_never_reached_is_more_than_all_of_them():
    report = pytest.importorskip("etfopt.experiments.studies._numbers")
    rest = dict.fromkeys(report.QUANTITIES, report.Spread(0.5, 1e-5, 2.0))
    table = spreads({"nearest": {**rest, "epochs_to_99": report.Spread(math.inf, 7, math.inf)}}, "digits", epochs=30)
    text = "\n".join(lines(table))
    assert ">30" in text
    assert "7 - >30" in text
    assert "1.0e-05 - 2.000" in text


def long_tables() -> list[Table]:
    """Every table with the longest names and numbers that it is to hold."""
    node, cost = pytest.importorskip("etfopt.bench.node"), pytest.importorskip("etfopt.bench.head")
    loops = pytest.importorskip("etfopt.bench.loops")
    report, measure = (
        pytest.importorskip("etfopt.experiments.studies._numbers"),
        pytest.importorskip("etfopt.bench._measure"),
    )
    registry = pytest.importorskip("theory.registry")
    shape = {"d": 2048, "C": 1000, "spectrum": "near collapse", "linear": 1.234e-2}
    times = {"forward": 1.234e-2, "backward": 4.321e-3, "square": 1.2e-5, "product": 1.1e-5}
    method = {"method": "newton-schulz", "route": "svd", "dtype": "float32"}
    spread = report.Spread(0.024502, 0.024352, 0.026321)
    residual = registry.Residual(0.5, 1.0, "a residual with a long name of what it is")
    parts = (registry.Part(lambda _rng: iter([residual])),)
    evidence = registry.gather(np.random.default_rng(0), 5, parts)
    claim = registry.Claim("unconstrained_features", "t", "s", "a", "p", "u", "r", parts, lambda *_: evidence)
    row = measure.Row(**dict.fromkeys(measure.Row.__dataclass_fields__) | {
        "problem": "ill-conditioned-512x47", "family": "ill-conditioned", "d": 512, "C": 47, "r": 47, "delta": 1e-3,
        "dtype": "float64", "solver": "procrustes-newton-schulz",
        "status": measure.Status.FAILED, "message": "a message", "termination": "",
    })  # fmt: skip
    solved = Summary("p", "procrustes-newton-schulz", 123, 123, *[0.1234] * 3, 1e-12, 1e-9, 0.1, 12.0, "")
    paper = {"paper_forward": 123.4, "paper_backward": 123.4, "ratio": 1234567.0, "paper_memory": 5 * 2**50}
    checked = {"steps": 1, "gap": 0.0, "paper_gap": 0.0, "gradient_error": 0.0, "memory": 123 * 2**20}
    about = {"python": "3.11.7", "machine": "x86_64", "date": "2026-11-23"}
    pipeline = Row(d=2048, C=1000, forward=0.1234, backward=0.1234, product=1e-4, linear=1e-3, **paper, **checked)
    return [
        pipelines([pipeline], about),
        *unit_costs([UnitRow(**shape, **times, **method)]),
        node_costs([node.NodeRow(**shape, device="cpu", method="newton-schulz", forward=0.1234, total=0.1234,
                                 product=1.1e-5, memory=12.0)], about),
        head_costs([cost.HeadRow("nearest, forward only", 1000, 128, "cpu", 0.1234, 1.234, 0.1234, 0.1234)], about),
        statistics_costs([cost.StatisticsRow(128, 512, 100, "cpu", 1.234e-2, 1.1e-5, 1.0625)]),
        loop_accuracies([loops.LoopRow(name, loop.title, head, (), 0.5, 0.1234, 0.4321, 1.0, ())
                         for name, loop in loops.LOOPS.items() for head in loops.HEADS], about),
        *comparison([row], about, width=80),
        *answers(peer_rows()), *overview(peer_rows()), *surroundings([pytest.importorskip("etfopt.bench.peers").PartRow(
            "distance", "2048 x 1000", "nearest_etf, forward alone", "cpu", 2, 1.234e-2, 1.234e-2, 123.45)]),
        overall(Standings([*summarise([row]), solved])),
        spreads({head: dict.fromkeys(report.QUANTITIES, spread) for head in ("learned", "fixed", "nearest")}, "t", 60),
        solution_table(etfopt.nearest_etf(np.random.default_rng(0).standard_normal((64, 10)))),
        verdicts([(claim, evidence)], "12 s, seed 0"),
        summary(dict.fromkeys(EIGHT, 0.1234567), "t"),
        measures({f"{split}_{name}": 0.123456 for split in ("train", "test") for name in ("accuracy", "nc1")}, "t"),
    ]  # fmt: skip


def test_every_table_fits_eighty_columns_with_no_word_cut_off():
    for table in long_tables():
        console = Console(width=80)
        with console.capture() as capture:
            console.print(table)
        text = capture.get()
        assert "…" not in text, text
        assert max(map(len, text.splitlines())) <= 80, text


def test_the_overall_table_draws_the_slowdown_as_a_bar():
    lines_of = [Summary("p", name, 1, 1, seconds, *[None] * 6, "") for name, seconds in (("a", 1.0), ("b", 100.0))]
    cells = [text.split() for text in lines(overall(Standings(lines_of)))]
    assert ["a", "1", "of", "1", "1", "x", "1", "s", "-", "#"] in cells
    assert ["b", "1", "of", "1", "100", "x", "100", "s", "-", "#####"] in cells
