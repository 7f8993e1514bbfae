"""Names of programs: `SynthModel_<Op>_<Op>…`, with the operators in forward order.

The file's stem and its class have the same name. So a consumer can read the operators from the file name, and
`validate` can check that the program realises them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from synth_core.records import sha256

PREFIX = "SynthModel"
MAX_LENGTH = 200  # characters; most file systems allow 255, and `.py` and temporary suffixes need space too
HASH_DIGITS = 12

_OPERATOR = re.compile(r"[A-Z][A-Za-z0-9]*")


def program_name(operators: Sequence[str]) -> str:
    """The name of a program that realises `operators`, given in forward order.

    A name longer than `MAX_LENGTH` is cut after the last operator that fits, and ends with a hash of the
    whole list. The hash is lower case, and no operator's name starts with a lower-case letter.
    """
    full = "_".join((PREFIX, *operators))
    if len(full) <= MAX_LENGTH:
        return full
    tail = "_h" + sha256(full)[: HASH_DIGITS - 1]
    return full[: full.rindex("_", 0, MAX_LENGTH - len(tail) + 1)] + tail


def operators_named(stem: str) -> tuple[str, ...] | None:
    """The operators in a file stem or class name, in order. None if it is not one of our names.

    The list ends at the first part that is not an operator: the hash of a long name, or a digest suffix.
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
