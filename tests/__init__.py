"""The tests, in folders that mirror the package; what they share lies in `tests.tools`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout: `theory`, `docs` and the notebooks lie in it, beside the package."""
