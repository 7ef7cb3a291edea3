"""What all commands do alike: exit codes, and errors in one line."""

import argparse
import io
import sys
import warnings
from collections.abc import Callable
from typing import get_args

from mljax.config.schema import MatmulPrecision


def run_command(run: Callable[[], int | None]) -> int:
    """Returns the exit code of a command: its own, 1 for an error that is printed, 130 for Ctrl-C.

    Args:
      run: does the work; None is 0. What it warns of is one line as well. What the terminal's
        encoding lacks is printed escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    before = warnings.formatwarning
    warnings.formatwarning = _format_warning
    try:
        with warnings.catch_warnings():
            # Pillow's; too many pixels are an error of ours, which says what to do.
            warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
            return run() or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        warnings.formatwarning = before


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Returns what is meant for users without the line of code that it comes from."""
    if category is UserWarning:
        return f"warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--plugin MODULE`, which can be given several times."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours whose parts a config or a checkpoint names; imported first",
    )


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--set PATH=VALUE`, which can be given several times."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="override a field of the config, as data.reader.kwargs.root=/my/coco",
    )


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--matmul-precision`."""
    parser.add_argument(
        "--matmul-precision",
        choices=get_args(MatmulPrecision),
        help="of products of float32: highest is float32 on GPUs too, where default is TF32; "
        "default: the config's eval.matmul_precision",
    )


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--data PATH=VALUE ...`, which can be given several times."""
    parser.add_argument(
        "--data",
        action="extend",
        nargs="+",
        default=[],
        metavar="PATH=VALUE",
        help="change the config's data, as reader.kwargs.root=/my/coco or eval_batch_size=8",
    )
