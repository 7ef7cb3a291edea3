"""Text files, JSON and XML: UTF-8 whatever the locale, errors that name the file and the line."""

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

_DECLARED = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._:-]+)[\"']")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a UTF-8 file, with their ends and without a byte order mark.

    Only one line is in memory at a time. A carriage return alone also ends a line.

    Raises:
      ValueError: for bytes that are not UTF-8; the message names the file and the line.
    """
    number = 0
    with path.open("rb") as file:
        for raw in file:
            if not number:
                # Spreadsheets put it in front.
                raw = raw.removeprefix(codecs.BOM_UTF8)
            text = _decode(raw, "utf-8", path, number + 1)
            # Of UTF-16 without a byte order mark, which passes as UTF-8.
            if "\0" in text:
                line = number + 1 + text.count("\r", 0, text.index("\0"))
                raise ValueError(f"{path}, line {line}: byte 0x00 is not text; save it as UTF-8")
            if "\r" in text[:-2]:
                for part in io.StringIO(text, newline=""):
                    yield part
                    number += 1
            elif text:
                yield text
                number += 1


def read_utf8(path: Path) -> str:
    """Returns the text of a file; see `read_lines`, also for what is raised."""
    return "".join(read_lines(path))


def read_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:  # noqa: ANN401
    """Returns the content of a JSON file.

    Args:
      path: of the file.
      hook: replaces each object while the file is parsed.

    Raises:
      ValueError: if the file is not UTF-8, not JSON, nested too deeply, or has an object with a
        name twice; the message names the file and the place.
    """

    def checked(pairs: list[tuple[str, Any]]) -> Any:  # noqa: ANN401
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise _RepeatedNameError(f"{path}: the name {twice!r} occurs twice in {found!r:.100}")
        return found if hook is None else hook(found)

    text = read_utf8(path)
    try:
        return json.loads(text, object_pairs_hook=checked)
    except _RepeatedNameError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    except RecursionError:
        raise ValueError(f"{path}: not a JSON file of data: it is nested too deeply") from None


class _RepeatedNameError(Exception):
    """A name that an object of a JSON file has twice."""


def read_xml(path: Path) -> ElementTree.Element:
    """Returns the root of an XML file in any encoding that Python knows.

    Raises:
      ValueError: for an unknown encoding, bytes that are not in it, or what is not XML; the
        message names the file.
    """
    content = path.read_bytes()
    declared = _DECLARED.match(content)
    encoding = declared[1].decode() if declared else "utf-8"
    for mark, marked in _MARKS.items():
        if content.startswith(mark):
            encoding = marked
    try:
        text = _decode(content, encoding, path, 1)
    except LookupError:
        raise ValueError(
            f"{path}: Python knows no encoding {encoding!r}, which the file declares"
        ) from None
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path}: not an XML file ({error})") from None


def separator_note(cells: str) -> str:
    """Returns what to add to an error where the cells of a table are not separated by commas."""
    for separator, name in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")):
        if separator in cells:
            return f"; its cells are separated by {name}, expected commas"
    return ""


def _decode(content: bytes, encoding: str, path: Path, line: int) -> str:
    """Returns the text of bytes whose first are in a line of the file."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line += len((before + b".").splitlines()) - 1
        name = "UTF-8" if encoding.startswith("utf-8") else encoding
        after = before[-20:].decode("ascii", "ignore").strip()
        raise ValueError(
            f"{path}, line {line}: byte {error.object[error.start]:#04x} is not {name}"
            f"{f' (after {after!r})' if after else ''}; save it as UTF-8"
        ) from None
    except UnicodeError as error:
        raise ValueError(f"{path}: not in the encoding {encoding} ({error})") from None
