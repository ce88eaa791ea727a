"""The page of all measures says of each what the catalog says of it."""

import re

import pytest

from etfopt.metrics import CATALOG, MEASURES
from tests import ROOT

PAGE = (ROOT / "docs" / "explanation" / "measures.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells
    for line in re.findall(r"^\| (`\w+` \|.*) \|$", PAGE, re.MULTILINE)
    if len(cells := re.split(r" \| ", line)) == 7
}


def test_the_page_has_a_row_for_every_measure_in_order() -> None:
    assert list(ROWS) == list(CATALOG)
    usual = PAGE[: PAGE.index("## For vocabularies")]
    assert all(f"`{key}`" in usual for key in MEASURES)


@pytest.mark.parametrize("key", CATALOG)
def test_a_row_has_the_facts_of_the_catalog(key: str) -> None:
    _, _, _, collapse, _, classifier, offset = ROWS[key]
    measure = CATALOG[key]
    assert (classifier == "yes", offset == "yes") == (measure.classifier, measure.offset)
    if measure.at_collapse is not None:
        assert float(collapse) == measure.at_collapse
