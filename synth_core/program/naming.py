"""Names of programs: `SynthModel_<Op>_<Op>…`, made of operators in forward order.

A file's stem, its class and the list of operators it claims are one and the same text, so a consumer can
read the operators off the file name and `validate` can hold a file to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from synth_core.records import sha256

PREFIX = "SynthModel"
MAX_LENGTH = (
    200  # leaves room for `.py`, temporary suffixes and long folders below the 255 of most file systems
)
HASH_DIGITS = 12

_OPERATOR = re.compile(r"[A-Z][A-Za-z0-9]*")


def program_name(operators: Sequence[str]) -> str:
    """Name of a program that realises `operators`, in forward order.

    A name over `MAX_LENGTH` characters keeps as many leading operators as fit and ends in a hash of the
    whole list. The hash is lower case and starts with a letter, as no operator does.
    """
    full = "_".join((PREFIX, *operators))
    if len(full) <= MAX_LENGTH:
        return full
    tail = "_h" + sha256(full)[: HASH_DIGITS - 1]
    return full[: full.rindex("_", 0, MAX_LENGTH - len(tail) + 1)] + tail


def operators_named(stem: str) -> tuple[str, ...] | None:
    """Operators that a file stem or class name claims, in order; None where it is not one of our names.

    Endings that are no operator (the hash of a long name, the number of a namesake) end the list.
    """
    prefix, *parts = stem.split("_")
    if prefix != PREFIX:
        return None
    named: list[str] = []
    for part in parts:
        if not _OPERATOR.fullmatch(part):
            break
        named.append(part)
    return tuple(named) or None
