"""What all tests of the experiments share: they need Lightning, and most of them the digits."""

import pytest

pytest.importorskip("pytorch_lightning")

from etfopt.experiments.data import Images, load_images
from etfopt.experiments.settings import DataConfig


@pytest.fixture(scope="session")
def digits() -> Images:
    """All of them; not to be changed."""
    return load_images(DataConfig())
