"""The guides count right: lines to add, and loops in the table."""

import re

import pytest

from tests import ROOT
from tests.tools.guides import added, diffs

pytest.importorskip("torch")
from tests.integrations import test_loops

HOWTO = ROOT / "docs" / "howto"
ELSEWHERE = {
    "timm's `ModelEmaV3`": "test_timm.py",
    "Lightning's `WeightAveraging`": "test_lightning.py",
    "Lightning's SWA": "test_lightning.py",
    "Accelerate": "test_accelerate.py",
    "DDP": "test_loop_ranks.py",
    "FSDP2": "test_loop_ranks.py",
}


def rows(page: str) -> list[list[str]]:
    lines = re.findall(r"^\| (.*) \|$", (HOWTO / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split(" | ") for line in lines[2:]]


def test_every_row_of_the_table_of_loops_is_tested():
    assert all((ROOT / "tests" / "integrations" / name).exists() for name in ELSEWHERE.values())
    assert {row[0] for row in rows("training_loops")} == test_loops.LOOPS.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("page", ["hugging_face", "timm", "skorch", "plain_loop", "lightning"])
def test_the_lines_to_add_are_as_many_as_the_index_says(page):
    text = (HOWTO / "index.md").read_text(encoding="utf-8")
    (numbers,) = re.findall(rf"\({page}\.md\) \| (\d+) \| (\d*)", text)
    assert [int(number) for number in numbers if number] == added(page)


@pytest.mark.parametrize("page", ["plain_loop", "lightning"])
def test_the_lines_of_a_change_are_those_of_the_program_below_it(page):
    text = (HOWTO / f"{page}.md").read_text(encoding="utf-8")
    program = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0].splitlines()
    assert {line[1:] for block in diffs(page) for line in block if line.startswith("+")} <= set(program)
