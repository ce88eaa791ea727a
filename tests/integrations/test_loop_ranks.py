"""The rows of the table of training loops with several processes."""

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this build of PyTorch has no gloo", allow_module_level=True)

from tests.tools.loop_ranks import CASES
from tests.tools.processes import on_processes


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return on_processes(CASES, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", [case for case in CASES if case != "FSDP2, learned"])
def test_two_processes_with_labels_from_a_block_end_as_one(case, ranks):
    one = CASES[case](0, 1)
    for found in ranks:
        assert isinstance(found.get(case), dict), found.get(case)
        for (name, value), expected in zip(found[case].items(), one.values(), strict=True):
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-8, msg=f"{name} of {case}")


def test_a_learned_head_refuses_to_be_sharded_and_names_the_remedy(ranks):
    for found in ranks:
        assert "Apply FSDP to the backbone only, and DistributedDataParallel to this head" in found["FSDP2, learned"]
