"""Files that are damaged at random, and what a reader may do with one: read it, or say in one line what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from etfopt.errors import InputError

ODD = (0, 1, 0x20, 0x22, 0x2C, 0x7F, 0x80, 0xFE, 0xFF)
LONG = 4096


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A file that was cut off, or of which bits were flipped or bytes changed, lost, doubled, mixed up or added."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        n = len(data)
        at, size = int(rng.integers(0, n + 1)), int(min(rng.geometric(0.1), LONG))
        if rng.random() < 0.4:
            at = min(at, int(rng.integers(0, 256)))  # most of what a file declares is at its beginning
        elif rng.random() < 0.2:
            at = max(0, n - int(rng.integers(0, 256)))  # or at its end
        kind = int(rng.integers(0, 8))
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < n:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            data[at : at + size] = rng.bytes(len(data[at : at + size]))
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4:
            data[at:at] = data[at : at + size] * int(rng.integers(1, 4))
        elif kind == 5:
            data[at : at + size] = bytes([int(rng.choice(ODD))]) * len(data[at : at + size])
        elif kind == 6:
            data[at:at] = str(int(rng.integers(0, 2 ** int(rng.integers(1, 63))))).encode()
        else:
            data += rng.bytes(size)
    return bytes(data)


def outcome(read: Callable[[], Any]) -> Any:
    """What is read, or None where it is refused in one line; whatever else is raised fails the test."""
    try:
        return read()
    except InputError as error:
        message = str(error)
        assert message.strip(), "an error without a word"
        assert "\n" not in message, message
        return None


def fuzz(path: Path, content: bytes, read: Callable[[Path], Any], rng: np.random.Generator) -> Any:
    """Damage a file and read it."""
    path.write_bytes(damaged(content, rng))
    return outcome(lambda: read(path))
