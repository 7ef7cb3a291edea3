"""What all commands do alike: exit codes, and errors in one line."""

import argparse
import sys
from collections.abc import Callable


def run_command(run: Callable[[], int | None]) -> int:
    """Returns the exit code of a command: its own, 1 for an error that is printed, 130 for Ctrl-C.

    Args:
      run: does the work; None is 0.
    """
    try:
        return run() or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--plugin MODULE`, which can be given several times."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours whose parts a config or a checkpoint names; imported first",
    )
