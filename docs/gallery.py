"""Run the code of the pages that show figures, and keep the figures in images/; `make pictures` runs it."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
PAGES = ("gallery.md", "explanation/frames.md")


def main() -> None:
    for page in PAGES:
        blocks = re.findall(
            r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        for number, code in enumerate(blocks, 1):
            if "save(" not in code:
                continue
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                exec(compile(code, f"{page}, block {number}", "exec"), {"__name__": "block"})
                for figure in Path().iterdir():
                    shutil.copyfile(figure, DOCS / "images" / figure.name)


if __name__ == "__main__":
    main()
