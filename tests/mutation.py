"""Break the code on purpose, one formula at a time, and see that the tests notice: ``python tests/mutation.py -j 2``.

The mutants are chosen by hand, in ``mutants/*.toml``, because the errors that matter here are errors of meaning: a
forgotten delta, a stale proximal point, a sum over one process only. Tools that exchange operators and constants
(mutmut, cosmic-ray) make few of these, and thousands of tolerances and messages beside them.

Each mutant names a file, a text that occurs exactly once there, what replaces it, and what should notice: arguments of
pytest, or ``theory:CLAIM``. All of these must first succeed on the untouched copy of the tree. A mutant that nothing
notices needs a test, or the reason why it is no error (`equivalent`). Exit status 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "tests" / "mutants"
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "notebooks")

CLAIM = """
import sys, numpy
from theory.registry import load
evidence = load(sys.argv[1]).check(numpy.random.default_rng(0), 200)
if not evidence.holds:
    sys.exit(f"FAILED {sys.argv[1]}: {evidence.counterexample}")
"""

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
    equivalent: str = ""

    def applied(self, root: Path) -> str:
        """Return the changed file; a ValueError if the old text does not occur exactly once."""
        text = (root / self.file).read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: the text of {self.what!r} occurs {found} times and not once: {self.old!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "caught", "timeout", "survived" or "equivalent"; and which check noticed."""

    mutant: Mutant
    verdict: str
    by: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the tests noticed; or did not, and the table says why they cannot."""
        return self.verdict == "equivalent" if self.mutant.equivalent else self.verdict in ("caught", "timeout")


def table(folder: Path = TABLES) -> list[Mutant]:
    """Return all mutants of a folder of TOML files."""
    entries = [entry for path in sorted(folder.glob("*.toml")) for entry in tomllib.loads(path.read_text())["mutant"]]
    return [Mutant(**{**entry, "caught_by": tuple(entry["caught_by"])}) for entry in entries]


def commands(catchers: Sequence[str]) -> list[list[str]]:
    """Return the command lines of what should notice: all tests in one process, each claim in its own."""
    tests = [catcher for catcher in catchers if not catcher.startswith("theory:")]
    claims = [catcher.removeprefix("theory:") for catcher in catchers if catcher.startswith("theory:")]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    pytest = [[sys.executable, "-m", "pytest", *options, *tests]] if tests else []
    return pytest + [[sys.executable, "-c", CLAIM, claim] for claim in claims]


def check(command: list[str], root: Path, limit: float) -> tuple[str, str]:
    """Run a command in a copy of the tree; return "silent", "caught", "timeout" or "unusable", and what it said."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",  # a change within the same second would be taken for no change
        "OMP_NUM_THREADS": "1",
        "HYPOTHESIS_PROFILE": "mutants",
    }
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return "timeout", f"{limit:g} s"
    said = done.stdout + done.stderr
    noticed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(.*?)(?: - .*)?$", said, re.MULTILINE)
    if done.returncode == 0:
        return "silent", ""
    if done.returncode in UNUSABLE and "pytest" in command:
        return "unusable", said[-2000:]
    return "caught", noticed[1][:120] if noticed else said.strip().rpartition("\n")[2][:120]


def judged(mutant: Mutant, root: Path, limit: float) -> Outcome:
    """Apply a mutant to a copy of the tree, ask everything that should notice, and put the file back."""
    path, start = root / mutant.file, time.monotonic()
    original, found, by = path.read_text(encoding="utf-8"), "silent", ""
    path.write_text(mutant.applied(root), encoding="utf-8")
    try:
        for command in commands(mutant.caught_by):
            found, by = check(command, root, limit)
            if found != "silent":
                break
    finally:
        path.write_text(original, encoding="utf-8")
        shutil.rmtree(root / ".hypothesis", ignore_errors=True)  # no mutant profits from another's examples
    verdict = ("equivalent" if mutant.equivalent else "survived") if found == "silent" else found
    return Outcome(mutant, verdict, by, time.monotonic() - start)


def unready(mutants: Sequence[Mutant], root: Path, limit: float) -> Iterator[str]:
    """Yield what fails before anything was broken: its silence or its noise would mean nothing."""
    for catchers in sorted({catcher for mutant in mutants for catcher in mutant.caught_by}):
        for command in commands([catchers]):
            found, said = check(command, root, limit)
            if found != "silent":
                yield f"{catchers}: {found} on the untouched tree: {said}"


@contextmanager
def copies(number: int, root: Path) -> Iterator[queue.SimpleQueue[Path]]:
    """Hold so many copies of the tree in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for k in range(number):
            shutil.copytree(root, Path(folder) / str(k), ignore=LEFT_OUT)
            free.put(Path(folder) / str(k))
        yield free


def run(mutants: Sequence[Mutant], jobs: int, limit: float, root: Path = ROOT) -> list[Outcome]:
    """Judge all mutants, `jobs` at a time."""
    with copies(jobs, root) as free, ThreadPoolExecutor(jobs) as pool, Progress(console=Console(stderr=True)) as bar:
        first = free.get()
        if failing := list(unready(mutants, first, 4 * limit)):
            sys.exit("\n".join(failing))
        free.put(first)
        task = bar.add_task("mutants", total=len(mutants))

        def one(mutant: Mutant) -> Outcome:
            copy = free.get()
            try:
                outcome = judged(mutant, copy, limit)
            finally:
                free.put(copy)
            if not outcome.good:
                bar.console.print(f"{mutant.file}: {mutant.what}: [red]{outcome.verdict}[/] {outcome.by}")
            bar.advance(task)
            return outcome

        return list(pool.map(one, mutants))


def printed(outcomes: Sequence[Outcome]) -> Table:
    """Return the table of outcomes."""
    shown = Table("file", "broken on purpose", "verdict", "noticed by, or why not", "s")
    for o in outcomes:
        colour = "green" if o.good else "red"
        by = o.mutant.equivalent if o.verdict == "equivalent" else o.by
        shown.add_row(o.mutant.file, o.mutant.what, f"[{colour}]{o.verdict}[/]", by, f"{o.seconds:.0f}")
    return shown


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
    outcomes = run(mutants, given.jobs, given.limit, root)
    Console().print(printed(outcomes))
    noticed = sum(o.verdict in ("caught", "timeout") for o in outcomes)
    equivalent, bad = sum(o.verdict == "equivalent" for o in outcomes), sum(not o.good for o in outcomes)
    print(f"{len(outcomes)} mutants: {noticed} noticed, {equivalent} equivalent and not, {bad} not as the table says")
    if given.json:
        rows = [asdict(o.mutant) | {"verdict": o.verdict, "by": o.by, "seconds": o.seconds} for o in outcomes]
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
