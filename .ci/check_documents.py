"""Checks the Markdown files of the project: line length, links to files, links to headings.

Run from the root of the repository: `python .ci/check_documents.py`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

WIDTH = 100
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^\s*```")


def documents(root: Path) -> list[Path]:
    """Returns the files to check."""
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob(".github/**/*.md")]
    return sorted(found)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yields the number and text of each line outside code blocks."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, line


def anchors(text: str) -> set[str]:
    """Returns the names that a link can use for the headings of a text, as GitHub makes them."""
    headings = (line.lstrip("#").strip() for _, line in prose(text) if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in headings}


def problems(path: Path) -> Iterator[str]:
    """Yields what is wrong in a file, one line each."""
    text = path.read_text("utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > WIDTH:
            yield f"{path}:{number}: {len(line)} characters, at most {WIDTH}"
    for number, line in prose(text):
        for target in LINK.findall(line):
            if "://" in target or target.startswith("mailto:"):
                continue
            name, _, anchor = target.partition("#")
            other = path.parent / name if name else path
            if not other.exists():
                yield f"{path}:{number}: no file {name}"
            elif anchor and other.suffix == ".md" and anchor not in anchors(other.read_text()):
                yield f"{path}:{number}: no heading #{anchor} in {other}"


def main() -> None:
    """Prints every problem; exits with 1 if there is one."""
    found = [problem for path in documents(Path()) for problem in problems(path)]
    print("\n".join(found) or "documents: every line fits, every link has its target")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
