"""The page of measures elsewhere has our values as the code gives them, and says equal only of what is."""

import importlib.util
import re

import pytest

from tests import ROOT

pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

PAGE = (ROOT / "docs" / "explanation" / "measures_elsewhere.md").read_text(encoding="utf-8")
SPEC = importlib.util.spec_from_file_location("compare_measures", ROOT / "docs" / "compare_measures.py")
compare = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(compare)


def tables() -> dict[str, list[list[str]]]:
    found = {}
    for part in PAGE.split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        rows = re.findall(r"^\| (.*) \|$", body, re.MULTILINE)
        found[title] = [[cell.strip() for cell in row.split("|")] for row in rows[2:]]
    return found


def test_the_page_has_every_case():
    assert tables().keys() == compare.CASES.keys()


@pytest.mark.parametrize("title", compare.CASES)
def test_our_values_on_the_page_are_those_of_the_code(title):
    ours, rows = compare.ours(compare.CASES[title]()), tables()[title]
    assert len(rows) > 10
    for name, value, *others in rows:
        assert float(value) == pytest.approx(ours[name], rel=1e-5), name
        for cell in filter(None, others):
            shown = float(cell.partition(" ")[0])
            assert ("(" in cell) or shown == pytest.approx(ours[name], rel=1e-5), (name, cell)


def test_a_difference_is_shown_and_equality_is_not():
    assert compare._cell(1.0000001, 1.0, 6) == "1"
    assert compare._cell(1.02, 1.0, 6) == "1.02 (0.02)"
    assert compare._cell(None, 1.0, 6) == ""
