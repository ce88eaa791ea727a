"""Hypothesis profiles and seeded generators: no test touches a global random state."""

import gc
import os

# Threads of several workers on the same cores wait for one another in loops, and a test takes twenty times as long.
# The libraries read this when they are imported.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import numpy as np
import pytest
from hypothesis import Phase, settings

# HYPOTHESIS_PROFILE chooses; `pytest -m hypothesis` takes half a minute, two minutes and about an hour of one core
settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=150, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=5000, deadline=None)
# for tests/tools/mutation.py: that a test fails is enough, the simplest example is not wanted
settings.register_profile("mutants", settings.get_profile("dev"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every search for garbage: it stays, and there is much of it."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with the same seed for every test."""
    return np.random.default_rng(20241104)


@pytest.fixture(scope="session", autouse=True)
def _codes_of_their_own(tmp_path_factory):
    """Codes that are searched by a test are cached for this session only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETFOPT_CACHE", str(tmp_path_factory.mktemp("codes")))
        yield
