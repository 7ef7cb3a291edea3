"""Text files that appear complete or not at all."""

import os
from pathlib import Path

# Ends the name of a file or folder that is still being written.
INCOMPLETE = ".incomplete"


def write_text(path: Path, text: str) -> None:
    """Writes a file as UTF-8 under another name, then puts it in the place of `path`.

    Whenever the process or the machine ends, the file is the old one or the new one, never a part.

    Raises:
      OSError: naming the file, such as on a full disk.
      ValueError: for text that is no Unicode, such as of a file name in another encoding.
    """
    temporary = path.with_name(path.name + INCOMPLETE)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except UnicodeEncodeError as error:
        temporary.unlink(missing_ok=True)
        raise ValueError(f"{path}: cannot be written as UTF-8: {error}") from error
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise named(error, path) from error


def named(error: OSError, path: Path | str) -> OSError:
    """Returns the error with the path that it is about; errors of reading and writing have none."""
    if error.filename is not None or error.errno is None:
        return error
    return OSError(error.errno, error.strerror, str(path))
