"""A loop of Accelerate, which wraps the network, the optimiser and the data."""

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate", reason="accelerate comes with the extra integrations")
from accelerate.state import AcceleratorState
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from tests.tools.loop_cases import HEADS, accuracy, images, network, sgd


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Accelerate remembers the precision of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("make", HEADS)
def test_a_loop_of_accelerate_trains_and_keeps_the_state_in_float32(make, precision):
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
    plain = network(make)
    data = DataLoader(TensorDataset(*images()), batch_size=16)
    model, optimizer, loader = accelerator.prepare(plain, sgd(plain), data)
    for _ in range(4):
        for x, y in loader:
            with accelerator.accumulate(model):
                with accelerator.unwrap_model(model)[1].labels(y):
                    loss = cross_entropy(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    assert {value.dtype for value in plain.state_dict().values()} == {torch.float32}
    assert accuracy(plain) > 0.95
