"""Commands in processes that need not import PyTorch and Lightning, which takes five seconds: no test in itself.

One process imports what others wrote, and nothing of this package; every command is forked from it, and is from there
on as one that was started: with a session, an environment and streams of its own, it imports the package and ends by
the end of its interpreter.
"""

import atexit
import functools
import json
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SERVER = """
import json, os, sys, warnings
import matplotlib.figure, pytorch_lightning, scipy.optimize, sklearn.datasets
for line in sys.stdin:
    if os.fork():
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        continue
    asked = json.loads(line)
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path[1:1] = os.environ["PYTHONPATH"].split(os.pathsep)
    opened = [os.open(path, os.O_RDWR | os.O_NOCTTY) for path in asked["streams"]]
    print(os.getpid(), flush=True)
    for number, stream in enumerate(opened):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)
    if "PYTHONWARNINGS" in os.environ:
        warnings.simplefilter(os.environ["PYTHONWARNINGS"])
    sys.argv[1:] = asked["arguments"]
    exec(asked["main"], {"__name__": "__main__"})
    break
"""


@functools.cache
def _server() -> subprocess.Popen[bytes]:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    atexit.register(server.__exit__, None, None, None)  # which closes its input, and so ends it
    return server


class Forked:
    """A command that has begun, with as much of `subprocess.Popen` as is needed; one at a time."""

    def __init__(
        self, main: str, arguments: Sequence[str], cwd: Path, env: dict[str, str], streams: Sequence[str]
    ) -> None:
        self.returncode: int | None = None
        asked = {"main": main, "arguments": arguments, "cwd": str(cwd), "env": env, "streams": streams}
        _server().stdin.write(json.dumps(asked).encode() + b"\n")
        self.pid = int(_server().stdout.readline())

    def poll(self) -> int | None:
        if self.returncode is None and select.select([_server().stdout], [], [], 0)[0]:
            self.returncode = int(_server().stdout.readline())
        return self.returncode

    def wait(self, timeout: float) -> int:
        select.select([_server().stdout], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("a forked command", timeout)
        return self.returncode
