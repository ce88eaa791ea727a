"""Break the code on purpose, one formula at a time, and see that the tests notice: ``make mutate``.

The mutants are chosen by hand, in ``mutants/*.toml``, because the errors that matter here are errors of meaning: a
forgotten delta, a stale proximal point, a sum over one process only. Tools that exchange operators and constants
(mutmut, cosmic-ray) make few of these, and thousands of tolerances and messages beside them.

Each mutant names a file, a text that occurs exactly once there, what replaces it, and what should notice: arguments of
pytest, or ``theory:CLAIM``. All of these must first succeed on the untouched copy of the tree. A mutant that nothing
notices needs a test; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import queue
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from tests import ROOT

TABLES = ROOT / "tests" / "mutants"
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "notebooks")

PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["pytest", "mpmath", "scipy.linalg", "torch", "torchmetrics", "pymanopt", "autograd", "cvxpy", "rich"]
"""What is slow to import, and is no part of the tree; hypothesis must be imported by pytest."""

Item, Result = TypeVar("Item"), TypeVar("Result")
Copies: TypeAlias = queue.SimpleQueue[Path]
"""Copies of the tree that nobody works in."""

UNUSABLE = (3, 4, 5)
"""Exit statuses of pytest that say nothing of the code: it broke down, was called wrongly, or found no test."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file, what it means, and what should notice."""

    file: str
    what: str
    old: str
    new: str
    caught_by: tuple[str, ...]

    def applied(self, root: Path) -> str:
        """Return the changed file; a ValueError if the old text does not occur exactly once."""
        text = (root / self.file).read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: the text of {self.what!r} occurs {found} times and not once: {self.old!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "caught", "timeout" or "survived"; and which check noticed."""

    mutant: Mutant
    verdict: str
    by: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the tests noticed."""
        return self.verdict in ("caught", "timeout")


def table(folder: Path = TABLES) -> list[Mutant]:
    """Return all mutants of a folder of TOML files."""
    entries = [entry for path in sorted(folder.glob("*.toml")) for entry in tomllib.loads(path.read_text())["mutant"]]
    return [Mutant(**{**entry, "caught_by": tuple(entry["caught_by"])}) for entry in entries]


def split(catchers: Sequence[str]) -> list[list[str]]:
    """Return what is run in one process each: all tests together, every claim by itself."""
    tests = [catcher for catcher in catchers if not catcher.startswith("theory:")]
    return [tests] * bool(tests) + [[catcher] for catcher in catchers if catcher.startswith("theory:")]


def check(catchers: Sequence[str], root: Path, limit: float) -> tuple[str, str]:
    """Run tests or a claim in a copy of the tree; return "silent", "caught", "timeout" or "unusable", and the word."""
    said = root / "said.txt"
    # forked from a process that has imported what is slow to import, but nothing of the tree
    process = PROCESSES.Process(target=_checked, args=(list(catchers), root, said))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return "timeout", f"{limit:g} s"
    text = said.read_text(encoding="utf-8")
    if process.exitcode == 0:
        return "silent", ""
    if process.exitcode in UNUSABLE:
        return "unusable", text[-2000:]
    noticed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(.*?)(?: - .*)?$", text, re.MULTILINE)
    return "caught", noticed[1][:120] if noticed else text.strip().rpartition("\n")[2][:120]


def _checked(catchers: list[str], root: Path, said: Path) -> None:
    """Do so in a process of its own."""
    with said.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(root)
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    sys.dont_write_bytecode = True  # a change within the same second would be taken for no change
    sys.path[:0] = [str(root), str(root / "tests")]
    for module in [name for name in sys.modules if name.partition(".")[0] in ("tests", "etfopt")]:
        del sys.modules[module]  # this script's own tree, of which the copy would be another
    name = catchers[0].removeprefix("theory:")
    if name == catchers[0]:
        options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        sys.exit(int(importlib.import_module("pytest").main([*options, *catchers])))
    registry, numpy = importlib.import_module("theory.registry"), importlib.import_module("numpy")
    evidence = registry.load(name).check(numpy.random.default_rng(0), 200)
    sys.exit(0 if evidence.holds else f"FAILED theory:{name}, {evidence.counterexample}")


def judged(mutant: Mutant, root: Path, limit: float) -> Outcome:
    """Apply a mutant to a copy of the tree, ask everything that should notice, and put the file back."""
    path, start = root / mutant.file, time.monotonic()
    original, found, by = path.read_text(encoding="utf-8"), "silent", ""
    path.write_text(mutant.applied(root), encoding="utf-8")
    try:
        for catchers in split(mutant.caught_by):
            found, by = check(catchers, root, limit)
            if found != "silent":
                break
    finally:
        path.write_text(original, encoding="utf-8")
        shutil.rmtree(root / ".hypothesis", ignore_errors=True)  # no mutant profits from another's examples
    return Outcome(mutant, "survived" if found == "silent" else found, by, time.monotonic() - start)


@contextmanager
def copies(number: int, root: Path) -> Iterator[Copies]:
    """Hold so many copies of the tree in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        free: Copies = queue.SimpleQueue()
        for k in range(number):
            shutil.copytree(root, Path(folder) / str(k), ignore=LEFT_OUT)
            free.put(Path(folder) / str(k))
        yield free


def each(work: Callable[[Item, Path], Result], items: Sequence[Item], free: Copies, jobs: int) -> Iterator[Result]:
    """Yield ``work(item, copy)`` of every item, in order, each in a copy of its own while it lasts."""

    def one(item: Item) -> Result:
        copy = free.get()
        try:
            return work(item, copy)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, items)


def noise(mutants: Sequence[Mutant], free: Copies, jobs: int, limit: float) -> list[str]:
    """Return what fails before anything was broken: its silence or its noise would mean nothing."""
    catchers = sorted({catcher for mutant in mutants for catcher in mutant.caught_by})
    found = each(lambda catcher, copy: check([catcher], copy, 4 * limit), catchers, free, jobs)
    return [
        f"{catcher}: {word} on the untouched tree: {said}"
        for catcher, (word, said) in zip(catchers, found, strict=True)
        if word != "silent"
    ]


def run(mutants: Sequence[Mutant], jobs: int, limit: float, root: Path = ROOT) -> list[Outcome]:
    """Judge all mutants, `jobs` at a time, after a look whether the untouched tree is silent."""
    outcomes = []
    with copies(jobs, root) as free:
        if failing := noise(mutants, free, jobs, limit):
            sys.exit("\n".join(failing))
        for outcome in each(lambda mutant, copy: judged(mutant, copy, limit), mutants, free, jobs):
            outcomes.append(outcome)
            done = f"{len(outcomes)} of {len(mutants)}: {outcome.verdict}: {outcome.mutant.file}: {outcome.mutant.what}"
            print(f"{done}: {outcome.by}" if outcome.by else done, file=sys.stderr, flush=True)
    return outcomes


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the mutants that are asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-j", "--jobs", type=int, default=1, help="mutants judged at a time")
    parser.add_argument("--only", default="", help="regular expression that occurs in a mutant's file or description")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds for each check, after which it has noticed")
    parser.add_argument("--json", type=Path, help="where to write the outcomes")
    given = parser.parse_args(arguments)
    mutants = [m for m in table(root / "tests" / "mutants") if re.search(given.only, f"{m.file}: {m.what}")]
    for mutant in mutants:
        mutant.applied(root)  # before anything runs
    PROCESSES.set_forkserver_preload(PRELOADED)
    outcomes = run(mutants, given.jobs, given.limit, root)
    bad = [o.mutant for o in outcomes if not o.good]
    print(f"{len(outcomes)} mutants: {len(outcomes) - len(bad)} noticed, {len(bad)} not")
    for mutant in bad:
        print(f"not noticed: {mutant.file}: {mutant.what}")
    if given.json:
        rows = [asdict(o.mutant) | {"verdict": o.verdict, "by": o.by, "seconds": o.seconds} for o in outcomes]
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
