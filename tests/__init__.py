"""The suite; `check` is its run-time type checker: beartype, taking an int as a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
