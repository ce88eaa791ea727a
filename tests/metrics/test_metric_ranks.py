"""Two and three processes measure what one does, however the samples are split between them."""

import pytest
import torch

if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this build of PyTorch has no gloo", allow_module_level=True)

from tests.tools.metric_rank_cases import CASES
from tests.tools.processes import on_processes


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return on_processes(CASES, 3, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_all_ranks_compute_what_one_process_does(case: str, ranks: list[dict]) -> None:
    expected = CASES[case](0, 1)
    assert len(expected) > 25
    for rank, found in enumerate(ranks):
        assert isinstance(found.get(case), dict), f"rank {rank}: {found.get(case, 'it hung or died')}"
        if rank == 2 and case.startswith("2"):
            continue  # it is no member of the group
        assert found[case] == pytest.approx(expected, rel=1e-12, abs=1e-12)
