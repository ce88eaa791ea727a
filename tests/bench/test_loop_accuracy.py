"""Batches of one sample cost no accuracy: heads with running statistics against a linear layer, by the same loops."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("sklearn")
from etfopt.bench.loops import HEADS, LOOPS, Loop, bench_loops

MARGIN = 0.03
"""How far a median may lie below that of the linear layer."""


def medians(loop: Loop, *heads: str, seeds: int) -> list[float]:
    return [row.median for row in bench_loops({"": loop}, seeds, {head: HEADS[head] for head in heads})]


def test_a_last_batch_of_one_sample_costs_no_accuracy():
    bar, *running = medians(LOOPS["1409"], "nn.Linear", "nearest", "fixed", seeds=5)
    assert min(running) >= bar - MARGIN
    assert max(medians(LOOPS["1409"], "nearest, paper", "fixed, paper", seeds=3)) < bar - MARGIN  # it can be missed


@pytest.mark.parametrize("head", ["nearest", "fixed"])
def test_gradients_of_single_samples_train_as_well_as_those_of_a_batch(head: str):
    whole, single = (dataclasses.replace(LOOPS[name], epochs=2) for name in ("1408", "128x1"))
    bars = medians(whole, "nn.Linear", head, seeds=1)  # accumulation changes nothing for the linear layer
    (found,) = medians(single, head, seeds=1)
    assert found >= max(bars) - MARGIN
