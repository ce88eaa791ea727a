"""Run the command line in a terminal of its own, as it looks to someone who sits at one; no test in itself."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import ROOT
from tests.tools.warm import Forked

# a shell in the background hands down an ignored SIGINT
MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'etfopt'; "
    "from etfopt.__main__ import main; main()"
)
FORCING = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d|10\d)(?:;\d+)*m")
"""An escape sequence that sets a colour of letters or ground; bold and faint are none."""


def environment(**changes: str) -> dict[str, str]:
    """Return this environment without what decides on colours, and with changes."""
    kept = {name: value for name, value in os.environ.items() if name not in FORCING}
    found = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": found, "TERM": "xterm-256color", **changes}


def command(*arguments: str, main: str = MAIN) -> list[str]:
    return [sys.executable, "-c", main, *arguments]


def run(*arguments: str, cwd: Path, main: str = MAIN, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command away from a terminal, and keep what it writes."""
    return subprocess.run(
        command(*arguments, main=main),
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def run_forked(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Do as `run` does, with the imports of others done before."""
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as error:
        process = Forked(MAIN, arguments, cwd, environment(**changes), [os.devnull, out.name, error.name])
        return subprocess.CompletedProcess(arguments, process.wait(timeout=280), out.read(), error.read())


def at_a_terminal(
    *arguments: str, cwd: Path, interrupt_at: str | None = None, main: str = MAIN, forked: bool = False, **changes: str
) -> tuple[int, str]:
    """Return the exit status and all that a terminal received; Ctrl-C is typed as soon as a pattern is seen in it."""
    ours, theirs = pty.openpty()
    env, tty = environment(COLUMNS="80", LINES="24", **changes), os.ttyname(theirs)
    # Ctrl-C reaches every process of the session
    process = (
        Forked(main, arguments, cwd, env, [os.devnull, tty, tty])
        if forked
        else subprocess.Popen(
            command(*arguments, main=main),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
    )
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 240
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux's word for the end
                chunk = b""
            if not chunk:
                break
            seen += chunk
            if interrupt_at and re.search(interrupt_at, seen.decode(errors="replace")):
                os.killpg(process.pid, signal.SIGINT)
                interrupt_at = None
        status = process.wait(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
        os.close(ours)
    return status, seen.decode(errors="replace").replace("\r\n", "\n")
