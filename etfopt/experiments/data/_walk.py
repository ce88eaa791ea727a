"""What lies in a folder of images, without what systems and programs leave there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from etfopt.errors import InputError

LEFT_BEHIND = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "@eadir", "lost+found", "__pycache__"),
}
"""By Windows, macOS, network disks and Python; what else they leave begins with a dot."""


def visible(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield what a folder holds and whether it is a folder, without hidden entries and what systems leave behind."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in LEFT_BEHIND:
                    continue
                is_folder = entry.is_dir()
                if not is_folder and not entry.is_file():
                    raise InputError(f"{entry.path}: is a link to nothing, or no ordinary file; remove it")
                yield Path(entry.path), is_folder
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error


def files_below(folder: Path, seen: dict[Path, Path]) -> Iterator[Path]:
    """Yield the files of a folder and of those below it, through links.

    `seen` maps real folders to how they were reached, the root first, and grows. A folder that is reached twice, or
    that holds the root, would give images twice, or never end.
    """
    root, stack = next(iter(seen)), [folder]
    while stack:
        here = stack.pop()
        real = here.resolve()
        if real in seen or root.is_relative_to(real):
            raise InputError(f"{here}: is the folder {seen.get(real, real)} once more; remove the link")
        seen[real] = here
        for path, is_folder in visible(here):
            if is_folder:
                stack.append(path)
            else:
                yield path
