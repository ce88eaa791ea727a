"""What a release says of itself agrees: version, date, changelog, citation, pictures, hooks."""

import re

import etfopt
from tests import ROOT

README, CHANGELOG, CITATION, MAKEFILE, HOOKS = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CHANGELOG.md", "CITATION.cff", "Makefile", ".pre-commit-config.yaml")
)
SECTIONS = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)


def test_the_version_is_semantic_and_the_same_everywhere() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", etfopt.__version__)
    (cited,) = re.findall(r"^version: (.*)$", CITATION, re.MULTILINE)
    assert cited == etfopt.__version__
    assert f"version = {{{etfopt.__version__}}}" in README
    assert SECTIONS[1].startswith(f"[{etfopt.__version__}] - ")


def test_the_date_of_the_release_is_that_of_the_citation() -> None:
    (released,) = re.findall(r"^date-released: (.*)$", CITATION, re.MULTILINE)
    assert SECTIONS[1] == f"[{etfopt.__version__}] - {released}"
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", released)


def test_the_changelog_begins_with_what_is_unreleased_and_keeps_to_its_headings() -> None:
    assert SECTIONS[0] == "[Unreleased]"
    headings = re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)
    assert headings
    assert set(headings) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_linter_of_ci_is_a_hook_and_every_hook_a_linter_of_ci() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe
    linters = {line.removeprefix("$(BIN)/").removesuffix(" .") for line in recipe[1].replace("\t", "").splitlines()}
    hooks = {line.removeprefix(".venv/bin/") for line in re.findall(r"entry: (.*)", HOOKS)}
    # the hook formats what is committed, where CI says what is not
    assert {line.removesuffix(" --check") if line.startswith("ruff") else line for line in linters} == hooks


def test_the_pictures_of_the_readme_are_there_described_and_small() -> None:
    described = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", README)
    described += [(alt, path) for path, alt in re.findall(r'<img src="([^"]+)" width="800" alt="([^"]+)"', README)]
    assert len(described) >= 3
    assert all(len(description) > 20 for description, _ in described)
    for path in [path for _, path in described] + re.findall(r'srcset="([^"]+)"', README):
        content = (ROOT / path).read_bytes()
        assert content.startswith((b"\x89PNG", b"<?xml")), path
        assert len(content) < 200_000, path


def test_every_relative_link_of_the_front_pages_leads_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{name}: {target}"
