"""The pages of error messages say what the source says, and built pages that load from other hosts are found."""

import re
import sys
from pathlib import Path

import pytest

from tests import ROOT

sys.path.append(str(ROOT / "docs"))
import messages
from offline import outside

GUIDE = (ROOT / "docs" / "howto" / "errors.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", GUIDE, re.MULTILINE)
SOURCE = """
def check(value, other):
    message = f"value = {value!r} has no use here"
    if other:
        raise InputError(message, "value", value, "pass " + "another")
    raise KeyError("no message of ours at all")
"""


def test_the_guide_quotes_messages_that_the_code_still_says() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in messages.PACKAGE.rglob("*.py"))
    said = re.sub(r'"\s+f?"', "", source)  # the parts of a message, joined
    assert len(QUOTED) > 20
    assert not [quoted for quoted in QUOTED if quoted not in said]


def test_messages_are_found_with_their_remedies_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(SOURCE)
    (found,) = messages.messages(tmp_path / "package")
    assert found == ("package.module", "InputError", "value = {value} has no use here", "pass another")


def test_the_page_lists_the_messages_of_the_package(tmp_path: Path) -> None:
    messages.write_messages(tmp_path / "messages.md")
    text = (tmp_path / "messages.md").read_text(encoding="utf-8")
    assert text.count("\n- ") > 300
    assert "new\\_means holds {new shape 1} classes" in text


@pytest.mark.parametrize(
    ("tag", "loads"),
    [
        ('<script defer="defer" src="https://cdn.example/mathjax.js"></script>', True),
        ("<img src='//host.example/a.png'>", True),
        ('<link rel="stylesheet" href="http://host.example/a.css">', True),
        ('<link rel="next" href="https://host.example/b.html">', False),
        ('<a href="https://host.example">a link</a>', False),
        ('<script src="../_static/mathjax/tex-chtml.js"></script>', False),
    ],
)
def test_what_a_page_loads_from_another_host_is_found(tag: str, loads: bool, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<html>{tag}</html>")
    assert bool(outside(tmp_path)) is loads
