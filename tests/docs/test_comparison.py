"""The table of times in the comparison is the one of the recorded run of `etfopt bench peers`."""

import json
from datetime import date

from tests import ROOT

RUN = json.loads((ROOT / "notebooks" / "results" / "peers" / "cpu.json").read_text())
PAGE = (ROOT / "docs" / "comparison.md").read_text()
ROWS = {(row["problem"], row["peer"]): row for row in RUN["rows"] if row["threads"] == 1}


def cells(line: str) -> list[str]:
    return [cell.strip(" `") for cell in line.strip().strip("|").split("|")]


def test_every_ratio_is_that_of_the_run():
    start = PAGE.index("| problem, one thread |")
    header, _, *lines = PAGE[start : PAGE.index("\n\n", start)].splitlines()
    peers = cells(header)[1:]
    assert len(lines) >= 8
    for line in lines:
        problem, *shown = cells(line)
        for peer, ratio in zip(peers, shown, strict=True):
            row = ROWS.get((problem, peer))
            if row is None or row["total"] is None:
                assert ratio == "\N{EN DASH}"
            elif row["ratio"] is None:
                assert ratio == "**wrong**"
            else:
                assert ratio == (f"{row['ratio']:.2f}" if row["ratio"] < 10 else f"{row['ratio']:,.0f}")


def test_the_page_names_the_conditions_of_the_run():
    conditions = RUN["conditions"]
    assert f"PyTorch {conditions['torch']}" in PAGE
    assert f"NumPy {conditions['numpy']}" in PAGE
    day = date.fromisoformat(conditions["date"])
    assert f"{day.day} {day:%B %Y}" in PAGE
