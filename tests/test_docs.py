"""Every code block of the guides runs as printed."""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
DOCS = Path(__file__).parents[1] / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page.parent.name not in ("theory", "api")]
BLOCKS = {
    str(page.relative_to(DOCS)): blocks
    for page in PAGES
    if (blocks := re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
}


def test_the_guides_have_code_to_run() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("page", BLOCKS)
def test_every_block_runs_in_a_namespace_of_its_own(page: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        for number, code in enumerate(BLOCKS[page], 1):
            exec(compile(code, f"{page}, block {number}", "exec"), {"__name__": "block"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_that_a_page_names_exist(page: Path) -> None:
    from etfopt.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups}
    named = set(re.findall(r"(?:^|`)etfopt ([a-z]\w*)", page.read_text(), re.MULTILINE))
    assert named <= known
