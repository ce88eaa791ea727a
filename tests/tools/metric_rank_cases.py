"""What up to three processes measure together, and one alone: test_metric_ranks.py compares them."""

from collections.abc import Callable
from functools import partial

import torch

from etfopt.metrics import NCCAgreement, NeuralCollapse
from tests.tools.metric_cases import SIZES, Data, draw, without_nan

CUTS = {
    "even": lambda n, size: [n // size] * (size - 1) + [n - n // size * (size - 1)],
    "one sample": lambda n, size: [1] * (size - 1) + [n - size + 1],
    "the last has all": lambda n, size: [0] * (size - 1) + [n],
    "the first has all": lambda n, size: [n] + [0] * (size - 1),
}


def data(order: str) -> Data:
    """Samples of 5 classes far from the origin, mixed or one class after the other."""
    features, labels, weight, bias = draw(5, 8, 120, noise=0.1, dtype=torch.float64)
    index = labels.argsort(stable=True) if order == "sorted" else torch.arange(120)
    return features[index] + 1e4, labels[index], weight, bias


def measured(rank: int, world: int, *, size: int, cut: str, order: str) -> dict[str, float]:
    """Measure the samples that this rank has, batch by batch; return what the first `size` ranks compute together."""
    group = torch.distributed.new_group(list(range(size))) if world > size > 1 else None  # made by all ranks
    size = min(size, world)
    if rank >= size:
        return {}
    features, labels, weight, bias = data(order)
    rows = torch.arange(len(labels)).split(CUTS[cut](len(labels), size))[rank]
    metric = NeuralCollapse(**SIZES, measures="all", frame="simplex", process_group=group)
    agreement = NCCAgreement(**SIZES, process_group=group)
    for part in rows.split(17):
        metric.update(features[part], labels[part], weight, bias)
        agreement.update(features[part], labels[part], weight, bias)
    values = {key: float(x) for key, x in metric.compute().items()}
    pair = metric.pairwise()
    between = metric.cdnv_of(torch.tensor([0, 1]), torch.tensor([4, 3]))
    duality = metric.self_duality()
    return without_nan(values) | {
        "agreement": float(agreement.compute()),
        "log_inverse_distance": pair.log_inverse_distance,
        "cdnv_of": float(between.sum()),
        "self_duality of class 3": float(duality[3]),
        "variance of class 1": float(metric.class_variances()[1]),
        "samples of class 2": float(metric.class_counts()[2]),
    }


CASES: dict[str, Callable[[int, int], dict[str, float]]] = {
    f"{size} ranks, {cut}, {order}": partial(measured, size=size, cut=cut, order=order)
    for size in (2, 3)
    for cut in CUTS
    for order in ("mixed", "sorted")
}
