"""Networks in the formats of other runtimes: what is written, how it is run, and by which name."""

from mljax.formats.files import FORMATS
from mljax.formats.runtimes import RUNTIMES

__all__ = ["FORMATS", "RUNTIMES"]
