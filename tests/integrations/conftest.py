"""What all tests of loops and trainers share."""

from tests.nn.conftest import _seeded  # noqa: F401 - a fixture
