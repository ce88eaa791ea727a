"""Where a run ran: versions, platform, revision of the source, time."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import etfopt

PACKAGES = ("numpy", "scipy", "pytorch-lightning", "torchmetrics")


def environment() -> dict[str, Any]:
    """Return what the results may depend on beside the configuration.

    ``git`` is None unless the package lies in a checkout of its own source; ``dirty`` says whether a tracked file of
    it differs from the revision.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "etfopt": etfopt.__version__,
        "torch": str(torch.__version__),  # with its build, such as +cu130, which the metadata of a wheel may lack
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",  # no release: it may name a host
        "processors": os.cpu_count(),
        "git": _git(),
    }


@functools.cache
def _git() -> dict[str, str | bool] | None:
    folder = Path(etfopt.__file__).parent

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")  # not a checkout around an installed package
        return {"revision": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
