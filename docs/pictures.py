"""Draw README's pictures from one run of the demonstration; `make pictures` runs it.

etfopt demo --out build/demo > build/demo.txt
python docs/pictures.py build/demo.txt build/demo/report/curves-1.png
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

IMAGES = Path(__file__).parent / "images"
GROUND, LETTERS, FRAME = "#16181d", "#e6e6e6", "#6b7280"
POINTS, DPI, MARGIN = 10.0, 100, 0.25
HEIGHT = 1.164
"""Of a line of DejaVu Sans Mono, in units of its size: with less or more the lines of a frame do not meet."""

LIMIT = 200_000
BOXES = {chr(code): " " for code in range(0x2500, 0x2580)}


def draw_text(text: str, path: Path) -> None:
    """Draw what a terminal showed, character by character as wide as the font says; frames in a fainter colour."""
    lines = text.rstrip().splitlines()
    font = FontProperties(family="DejaVu Sans Mono", size=POINTS)
    width = TextPath((0, 0), "M" * 100, prop=font).get_extents().width / 100 / 72  # inches a character
    height = POINTS * HEIGHT / 72
    size = max(map(len, lines)) * width + 2 * MARGIN, len(lines) * height + 2 * MARGIN
    figure = Figure(figsize=size, facecolor=GROUND)
    for number, line in enumerate(lines):
        y = 1 - (MARGIN + (number + 0.5) * height) / size[1]
        letters = "".join(BOXES.get(character, character) for character in line)
        frame = "".join(character if character in BOXES else " " for character in line)
        for words, colour in ((letters, LETTERS), (frame, FRAME)):
            if words.strip():
                figure.text(
                    MARGIN / size[0],
                    y,
                    words,
                    color=colour,
                    fontproperties=font,
                    va="center_baseline",
                    parse_math=False,
                )
    figure.savefig(path, dpi=DPI, facecolor=GROUND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("printed", type=Path, help="what etfopt demo printed")
    parser.add_argument("curves", type=Path, help="its curves-1.png")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    draw_text(options.printed.read_text(encoding="utf-8"), IMAGES / "demo.png")
    shutil.copyfile(options.curves, IMAGES / "curves.png")
    for path in IMAGES.glob("*.png"):
        if path.stat().st_size > LIMIT:
            raise SystemExit(f"{path}: {path.stat().st_size} bytes, more than {LIMIT}")


if __name__ == "__main__":
    main()
