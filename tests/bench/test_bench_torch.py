"""What the node and the heads cost: every case is measured, and memory is counted while it lives."""

import dataclasses
import itertools
import math

import pytest

from etfopt import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
from etfopt._memory import Allocations
from etfopt.bench.head import HEADS, bench_heads, bench_statistics
from etfopt.bench.node import NodeRow, bench_node, growth
from etfopt.experiments.networks.backbones import resnet18


def test_every_shape_is_measured_on_random_means_and_near_collapse():
    steps = itertools.count()
    rows = bench_node([(512, 4), (300, 5)], on_step=lambda: next(steps))
    assert next(steps) == 4
    assert [(row.d, row.C, row.spectrum) for row in rows] == [
        (512, 4, "random"),
        (512, 4, "near collapse"),
        (300, 5, "random"),
        (300, 5, "near collapse"),
    ]
    for row in rows:
        assert min(row.forward, row.total, row.product, row.linear, row.distance) > 0
        assert 2 < row.memory < 12  # at least A and U live at once


def test_every_method_is_measured_on_every_case():
    methods = ("auto", "svd", "gram", "newton-schulz")
    rows = bench_node([(12, 4)], methods=methods)
    assert [(row.method, row.spectrum) for row in rows] == [
        (m, s) for s in ("random", "near collapse") for m in methods
    ]
    assert len({row.memory for row in rows}) > 1
    with pytest.raises(InputError, match="method = 'qr' is not known"):
        bench_node([(12, 4)], methods=["qr"])


def test_memory_is_counted_while_it_lives():
    X = torch.ones(100)

    with Allocations(torch.device("cpu")) as held:
        Y = X + 1  # 100 numbers
        Y = Y[:50] + Y[50:]  # 50 more, then the first are gone
        Y = Y * 2
        Y.view(5, 10).add_(1)  # no more
    Y = Y + 1  # after the end
    assert held.peak == 150 * 4


def test_growth_is_the_slope_of_log_time():
    def row(C: int, total: float, spectrum: str = "random") -> NodeRow:
        return NodeRow(2048, C, spectrum, "cpu", 0.0, total, 1.0, 1.0, 1.0)

    other = dataclasses.replace(row(1000, 5.0), method="svd")
    assert math.isclose(growth([row(100, 1.0), row(1000, 100.0), row(1000, 7.0, "near collapse"), other]), 2.0)
    assert math.isnan(growth([row(100, 1.0)]))


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(InputError, match=rf"device = '{device}' cannot be used: .*; try cpu"):
        bench_node([(12, 4)], device=device)


def test_the_network_has_the_parameters_of_a_resnet18_and_512_features():
    network = resnet18()
    # 11,173,962 with its classifier of 10 classes (5,130), as usually counted for 32 x 32 images
    assert sum(p.numel() for p in network.parameters()) == 11_173_962 - 5_130
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 512)


def test_every_head_trains_the_same_network_in_turn():
    steps = itertools.count()
    rows = bench_heads([4], batch=4, rounds=1, on_step=lambda: next(steps))
    assert next(steps) == 2 * len(HEADS)
    assert [row.head for row in rows] == list(HEADS)
    assert rows[0].ratio == 1
    assert rows[0].share == 0
    assert all(row.step > row.alone > 0 for row in rows)


def test_running_statistics_are_timed_beside_the_papers_on_every_shape():
    rows = bench_statistics([(12, 8, 3), (6, 5, 4)], rounds=3)
    assert [(row.batch, row.d, row.C) for row in rows] == [(12, 8, 3), (6, 5, 4)]
    assert all(min(row.running, row.paper, row.ratio) > 0 for row in rows)
