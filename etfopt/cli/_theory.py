"""Find the folder `theory/`, which lies beside the package in a checkout and is not part of the installed one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import etfopt
from etfopt.errors import InputError, require_extra

__all__ = ["registry"]


def registry(folder: Path | None) -> ModuleType:
    """Import ``theory.registry`` from a folder; if none is given, from beside the package or the working directory."""
    require_extra("theory", "mpmath", "sympy", "torch", "pymanopt", "autograd")
    candidates = [folder] if folder else [Path(etfopt.__file__).parents[1] / "theory", Path("theory")]
    found = next((path.resolve() for path in candidates if (path / "registry.py").is_file()), None)
    if found is None or found.name != "theory":
        raise InputError(
            f"{folder or 'theory/'}: not a folder `theory` with the claims; the installed package does not have it. "
            f"Clone the repository, or unpack the source distribution of etfopt {etfopt.__version__} "
            f"(pip download --no-deps --no-binary etfopt etfopt=={etfopt.__version__}), and run `etfopt verify` there "
            "or name the folder with --theory"
        )
    sys.path.insert(0, str(found.parent))
    try:
        module = importlib.import_module("theory.registry")
    finally:
        sys.path.remove(str(found.parent))
    return module
