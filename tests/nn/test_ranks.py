"""Two processes against one: the same gradient, the same bits on both, and no process that waits for ever."""

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this build of PyTorch has no gloo", allow_module_level=True)

from tests.tools.head_cases import STATEFUL
from tests.tools.processes import on_processes
from tests.tools.rank_cases import OTHERS, SAME_AS_ONE


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return on_processes({**SAME_AS_ONE, **OTHERS}, 2, tmp_path_factory.mktemp("ranks"))


def results(ranks: list[dict], case: str) -> list:
    for rank, found in enumerate(ranks):
        assert case in found, f"rank {rank} did not come to the end of {case}: it hung or died"
        assert not isinstance(found[case], str), found[case]
    return [found[case] for found in ranks]


@pytest.mark.filterwarnings("ignore:.*hold one class only:UserWarning")  # some splits leave a batch of one sample
@pytest.mark.parametrize("case", SAME_AS_ONE)
def test_two_ranks_give_the_gradient_and_the_state_of_one_process(case, ranks):
    one = SAME_AS_ONE[case](0, 1)
    for found in results(ranks, case):
        for ours, theirs in zip(found["gradients"], one["gradients"], strict=True):
            for g, expected in zip(ours, theirs, strict=True):
                if g is not None:
                    torch.testing.assert_close(g, expected, rtol=1e-10, atol=1e-10)
        for name, value in one["states"][-1].items():
            torch.testing.assert_close(found["states"][-1][name], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", [*SAME_AS_ONE, "resumed_on_one", "rounded_otherwise"])
def test_both_ranks_hold_the_same_state_to_the_bit(case, ranks):
    first, second = results(ranks, case)
    for ours, theirs in zip(first["states"], second["states"], strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_batch_that_one_rank_refuses_is_refused_on_all_and_changes_no_bit(ranks):
    first, second = results(ranks, "refused")
    assert len(first) == 6 * 6 - 2
    for case, (said, same) in first.items():
        assert "refused on rank(s) 1 of the process group" in said, case
        assert same, case
        own, kept = second[case]
        assert own.startswith(("features", "labels")), case
        assert kept, case


@pytest.mark.parametrize("head", [make.__name__ for make in STATEFUL])
def test_a_bad_batch_that_nobody_may_look_at_changes_no_bit_on_any_rank_and_is_reported_by_eval(head, ranks):
    for found in results(ranks, "refused_unseen"):
        said, same = found[head]
        assert "1 batch(es) could not be used" in said
        assert same


def test_a_process_can_be_left_alone_or_given_another_group(ranks):
    for found in results(ranks, "alone"):
        for head in (make.__name__ for make in STATEFUL):
            assert found[f"off {head}"]
            assert found[f"own group {head}"]
            assert "a process group that does not contain this process" in found[f"other group {head}"]
    assert ranks[0]["alone"]["eval"]


def test_a_copy_keeps_the_group_and_a_pickle_is_refused_with_the_remedy(ranks):
    for found in results(ranks, "copies"):
        assert found["same"]
        assert "Save state_dict() instead" in found["pickle"]


def test_a_checkpoint_that_one_rank_loads_is_resumed_on_both(ranks):
    for found in results(ranks, "resumed_on_one"):
        assert int(found["states"][0]["means.steps"]) == 4


def test_the_state_goes_round_under_fully_sharded_training(ranks):
    assert all(found["same"] for found in results(ranks, "saved"))
