"""Build the distributions, and try the wheel as a stranger would: each extra alone, in a fresh environment elsewhere.

python .ci/wheel.py                  # no extra, then each by itself; the last, `all`, runs the documentation too
python .ci/wheel.py --extra torch    # one of them; --extra none for no extra at all
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import probes
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.tools import extras  # noqa: E402 - lies beside the tests, which read the same table

CORE_FILES = ("etfopt/py.typed", "etfopt/bench/digits_means.npz")
MEANS = "1,0,0\n0,1,0\n0,0,1\n1,1,0\n"


class Failure(Exception):
    """Something did not behave; the message says what, with what was printed."""


def run(*command: str | Path, cwd: Path, status: int = 0, words: tuple[str, ...] = ()) -> str:
    """Run a command without anything of the checkout in its environment; return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = {**kept, "COLUMNS": "120", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    missing = [word for word in words if word not in done.stdout]
    if done.returncode != status or missing or "Traceback" in done.stdout:
        wanted = f"{', '.join(missing)} not found; " if missing else ""
        shown = shlex.join(map(str, command))[:300]
        raise Failure(f"{shown}\n{wanted}status {done.returncode}, expected {status}\n{done.stdout[-3000:]}")
    return done.stdout


def build(dist: Path) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it; return both."""
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, cwd=ROOT)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path) -> str:
    """Compare both with what git tracks: the wheel has the package and nothing else, the other all that tests need."""
    tracked = set(run("git", "ls-files", cwd=ROOT).split("\n")[:-1])
    package = {name for name in tracked if name.startswith("etfopt/")}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    if packed != package or not set(CORE_FILES) <= packed:
        raise Failure(f"the wheel differs from the package in {sorted(packed ^ package)}")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {name for name in tracked - inside if not name.startswith((".git", ".pre-commit"))}
    if left_out:
        raise Failure(f"the source distribution lacks {sorted(left_out)}")
    return f"{len(packed)} files in the wheel, {len(inside)} in the source distribution"


def install(wheel: Path, extra: str, folder: Path) -> Path:
    """Make an environment with the wheel and one extra; return its folder of programs."""
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", venv, cwd=folder)
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    run(venv / "bin/python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wanted, cwd=folder)
    run(venv / "bin/python", "-m", "pip", "check", cwd=folder)
    return venv / "bin"


def trials(extra: str, sdist: Path) -> Iterator[tuple[str, Callable[[Path, Path], object]]]:
    """Yield what is tried with one extra: a name, and a function of the programs' folder and the working folder."""
    there = extras.brought(extra) if extra else set()
    promised, absent = extras.promised(extra)
    lists = json.dumps([promised, [(name, extras.needed(name)) for name in absent]])
    yield (
        f"{len(promised)} modules import, {len(absent)} name their pip line",
        lambda programs, folder: run(programs / "python", "-W", "error", "-c", probes.IMPORTS, lists, cwd=folder),
    )
    for name, code in probes.PYTHON.items():
        if not name or name in there:
            yield f"python: {name or 'core'}", python(code)
    if "cli" not in there:
        yield (
            "etfopt names the pip line",
            lambda programs, folder: run(
                programs / "etfopt", "doctor", cwd=folder, status=2, words=("pip install 'etfopt[cli]'",)
            ),
        )
        return
    commands = list(probes.ALWAYS)
    for other in extras.EXTRAS:
        commands += (probes.WITH if other in there else probes.WITHOUT).get(other, [])
    for arguments, status, words in commands:
        yield f"etfopt {arguments}" + (f" (refused: {status})" if status else ""), etfopt(arguments, status, words)
    if extra == "all":
        yield from documentation(sdist)


def python(code: str) -> Callable[[Path, Path], object]:
    return lambda programs, folder: run(programs / "python", "-W", "error", "-c", code, cwd=folder)


def etfopt(arguments: str, status: int = 0, words: tuple[str, ...] = ()) -> Callable[[Path, Path], object]:
    return lambda programs, folder: run(
        programs / "etfopt", *shlex.split(arguments), cwd=folder, status=status, words=words
    )


def documentation(sdist: Path) -> Iterator[tuple[str, Callable[[Path, Path], object]]]:
    """Yield every code block and every command of README and the guides, README first, as one reads them."""
    yield "claims unpacked from the source distribution", lambda _, folder: unpack(sdist, folder)
    yield "images as the guides suppose them", python(probes.IMAGES)
    for name in ("README.md", *run("git", "ls-files", "docs/*.md", cwd=ROOT).split()):
        text = (ROOT / name).read_text(encoding="utf-8")
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL), 1):
            yield f"{name}, block {number}", saved("train.py", code) if code.startswith("# train.py") else python(code)
        for text_of_file, file in re.findall(r"^```toml\n(.*?)^```.*?Saved as `(.*?)`", text, re.MULTILINE | re.DOTALL):
            yield f"{name}: {file}", saved(file, text_of_file)
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] in ("etfopt", "torchrun"):
                    yield f"{name}: {shlex.join(words)}", command(words)


def command(words: list[str]) -> Callable[[Path, Path], object]:
    return lambda programs, folder: run(programs / words[0], *words[1:], cwd=folder)


def saved(name: str, text: str) -> Callable[[Path, Path], object]:
    return lambda _, folder: (folder / name).write_text(text, encoding="utf-8")


def unpack(sdist: Path, folder: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (folder / "theory").symlink_to(next((folder / "source").iterdir()) / "theory")


def attempt(extra: str, wheel: Path, sdist: Path, table: Table, say: Callable[[str], object]) -> int:
    """Try one extra from its installation on; add rows to the table, and return how many trials failed."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="etfopt-wheel-") as temporary:
        folder = Path(temporary) / "work"
        folder.mkdir()
        (folder / "means.csv").write_text(MEANS)
        programs = Path()

        def first(_: Path, __: Path) -> None:
            nonlocal programs
            programs = install(wheel, extra, Path(temporary))

        for name, trial in (("install, pip check", first), *trials(extra, sdist)):
            start = time.perf_counter()
            try:
                trial(programs, folder)
                verdict = "[green]works[/]"
            except Failure as failure:
                failures += 1
                verdict = "[bold red]fails[/]"
                say(f"--- {extra or 'none'}: {name}\n{failure}")
            table.add_row(extra or "none", name, f"{time.perf_counter() - start:.1f} s", verdict)
            if name.startswith("install") and failures:
                break
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extra", choices=["none", *extras.EXTRAS], help="only this one")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where the distributions are put")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("extra", "tried", "time", "verdict", title="The wheel, outside the checkout", title_justify="left")
    sdist, wheel = build(options.dist)
    contents = check_contents(sdist, wheel)
    chosen = [options.extra] if options.extra else ["none", *extras.EXTRAS]
    failures = 0
    for extra in chosen:
        console.print(f"trying {wheel.name} with {extra}", highlight=False)
        failures += attempt(
            "" if extra == "none" else extra, wheel, sdist, table, lambda text: console.print(text, markup=False)
        )
        table.add_section()
    table.caption = f"{contents}; {failures} failed"
    console.print(table)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
