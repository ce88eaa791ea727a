"""What all tests of the bridge share."""

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """LearnedHead draws its rows from PyTorch's global generator, as every layer does: seed it and put it back."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield
