"""Measured layers on two processes are those of one, also where a process has no batch."""

from functools import partial

import pytest
import torch
from torch import nn

from etfopt.metrics import LayerMeasures, NeuralCollapse, NumericalRank
from tests.tools.layer_cases import C, floats, mlp
from tests.tools.processes import on_processes

if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this build of PyTorch has no gloo", allow_module_level=True)

SPLITS = {"parts": (7, 33), "nothing on the first": (0, 40)}


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(40, 5, generator=torch.Generator().manual_seed(5)), torch.arange(40) % C


def measured(sizes: tuple[int, ...], rank: int, size: int) -> dict[str, dict[str, float]]:
    model = mlp().eval()
    network = nn.parallel.DistributedDataParallel(model) if size > 1 else model
    measures = LayerMeasures(
        network, ["0", "4"], num_classes=C, classifier="5", metrics=[NeuralCollapse, NumericalRank]
    )
    x, y = (part.split(list(sizes))[rank] for part in samples())
    if len(y):
        with torch.no_grad(), measures.labels(y):
            network(x)
    return {name: floats(values) for name, values in measures.compute().items()}


def test_processes_measure_the_layers_of_one(tmp_path):
    found = on_processes({name: partial(measured, sizes) for name, sizes in SPLITS.items()}, 2, tmp_path)
    expected = measured((40,), 0, 1)
    for result in found:
        assert result.keys() == SPLITS.keys()
        for name, layers in result.items():
            assert isinstance(layers, dict), layers
            assert layers.keys() == expected.keys(), name
            for layer, values in layers.items():
                assert values == pytest.approx(expected[layer], rel=1e-6, abs=1e-9, nan_ok=True), (name, layer)
