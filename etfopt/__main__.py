"""The program: `etfopt`, and `python -m etfopt`."""

from __future__ import annotations

import sys

from etfopt.errors import MissingExtraError

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say with which line of pip to install it."""
    try:
        from etfopt.cli import main as run

        run()
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(130)


if __name__ == "__main__":
    main()
