"""Training loops: what a loop does to the batches, and accuracies that can be had again."""

import dataclasses
import itertools

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("sklearn")
from etfopt.bench import _trainer
from etfopt.bench.loops import HEADS, LOOPS, LoopRow, bench_loops, choose_loops
from etfopt.errors import InputError, MissingExtraError
from etfopt.experiments.training.machine import use_threads


def short(name: str, **changes: object) -> dict:
    return {name: dataclasses.replace(LOOPS[name], epochs=2, **changes)}


def alike(rows: list[LoopRow]) -> list[tuple]:
    """Rows without their times."""
    return [dataclasses.astuple(dataclasses.replace(row, seconds=0.0)) for row in rows]


def test_every_head_trains_by_every_loop_and_the_numbers_can_be_had_again():
    steps = itertools.count()
    drawn = torch.get_rng_state()
    loops = short("1409") | short("late", late=1)
    with use_threads(2):
        rows = bench_loops(loops, seeds=1, on_step=lambda: next(steps))
        assert torch.get_num_threads() == 2
    assert next(steps) == 2 * len(HEADS)
    assert [(row.loop, row.head) for row in rows] == [(name, head) for name in loops for head in HEADS]
    assert all(0 <= row.lowest == row.median == row.highest <= 1 and row.seconds > 0 for row in rows)
    assert alike(bench_loops(loops, seeds=1)) == alike(rows)
    assert torch.equal(torch.get_rng_state(), drawn)


class Recorder(torch.nn.Module):
    """A linear layer that records the labels of its batches."""

    def __init__(self, d: int, C: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(d, C)
        self.batches: list[list[int]] = []

    def forward(self, features, labels=None):
        if labels is not None:
            self.batches.append(labels.tolist())
        return self.layer(features)


def recorded(name: str, **changes: object) -> Recorder:
    """The recorder that a loop has trained for two epochs."""
    made: list[Recorder] = []

    def make(d: int, C: int) -> Recorder:
        made.append(Recorder(d, C))
        return made[-1]

    bench_loops(short(name, **changes), seeds=1, heads={"recorder": make})
    return made[0]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("1408", [128] * 11),
        ("1409", [128] * 11 + [1]),
        ("1410", [128] * 11 + [2]),
        ("4x32", [32] * 44),
        ("64x2", [2] * 704),
        ("128x1", [1] * 1408),
        ("in-turn", [20] * 100),
        ("in-turn-digits", [128] * 11),
        ("relu", [128] * 11),
    ],
)
def test_a_loop_has_the_batches_that_its_name_says(name: str, sizes: list[int]):
    batches = recorded(name).batches
    assert [len(batch) for batch in batches] == 2 * sizes
    labels = list(itertools.chain(*batches[: len(sizes)]))
    assert (labels == sorted(labels)) == name.startswith("in-turn")
    if name == "in-turn":
        assert all(len(set(batch)) == 1 for batch in batches)


def test_a_late_class_is_left_out_of_the_first_epochs_and_tested_alone():
    batches = recorded("late", late=1).batches
    first = next(k for k, batch in enumerate(batches) if 9 in batch)
    assert 9 < first < 11  # ten batches of about 1270 samples
    assert sum(map(len, batches[first:])) == 1408
    never = bench_loops(short("late", late=2), seeds=1, heads={"linear": HEADS["nn.Linear"]})
    assert [row.median for row in never] == [0]  # what was never seen is never right


@pytest.mark.parametrize("name", ["4x32", "64x2", "128x1"])
def test_accumulation_takes_the_steps_of_whole_batches(name: str):
    whole, parts = recorded("1408").layer, recorded(name).layer
    torch.testing.assert_close(parts.weight, whole.weight, rtol=0, atol=1e-5)


def test_a_problem_is_the_same_for_every_head_and_differs_by_seed():
    rows = bench_loops(short("1408"), seeds=2, heads={"a": HEADS["nn.Linear"], "b": HEADS["nn.Linear"]})
    assert rows[0].accuracies == rows[1].accuracies
    assert len(set(rows[0].accuracies)) == 2


def test_an_answer_that_is_not_finite_is_not_right():
    class Broken(Recorder):
        def forward(self, features, labels=None):
            logits = super().forward(features, labels)
            return logits if self.training else logits * torch.nan

    assert bench_loops(short("1408"), seeds=1, heads={"broken": Broken})[0].median == 0


def test_a_loop_is_scaled_by_its_epochs():
    late = LOOPS["late"].scaled(0.5)
    assert (late.epochs, late.late) == (7, 4)
    assert LOOPS["1409"].scaled(0.01) == dataclasses.replace(LOOPS["1409"], epochs=1)


def test_options_of_a_loop_reach_the_heads_with_a_frame():
    with pytest.raises(TypeError, match="colour"):
        bench_loops(short("relu", options={"colour": "red"}), seeds=1)
    with pytest.raises(InputError, match="seeds must be an integer of at least 1"):
        bench_loops(short("1408"), seeds=0)


def test_loops_are_chosen_by_name_and_those_that_cannot_run_are_left_out(monkeypatch):
    def missing() -> None:
        raise MissingExtraError("transformers is not installed", name="transformers")

    monkeypatch.setattr(_trainer, "require", missing)
    loops, notes = choose_loops()
    assert list(loops) == [name for name in LOOPS if not name.startswith("trainer")]
    assert notes == [f"trainer-{n} is left out: transformers is not installed" for n in (512, 513)]
    assert choose_loops(["relu", "1408"]) == ({"relu": LOOPS["relu"], "1408": LOOPS["1408"]}, [])
    with pytest.raises(InputError, match="rows = '1411' is not known; choose one of: 1408, 1409"):
        choose_loops(["1411"])
    with pytest.raises(MissingExtraError, match="transformers is not installed"):
        choose_loops(["trainer-512"])


@pytest.mark.filterwarnings("default")  # what transformers and accelerate warn of is not ours
@pytest.mark.parametrize(("name", "sizes"), [("trainer-512", [32] * 16), ("trainer-513", [32] * 16 + [1])])
def test_the_trainer_of_hugging_face_has_the_batches_that_the_name_says(name, sizes, capsys):
    pytest.importorskip("transformers", reason="needs the extra integrations")
    pytest.importorskip("accelerate", reason="needs the extra integrations")
    assert [len(batch) for batch in recorded(name).batches] == 2 * sizes
    assert capsys.readouterr().out == ""
