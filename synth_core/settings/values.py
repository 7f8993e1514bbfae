"""The types of values that options accept, each with its check."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field


def _parse_range(value: Any) -> Any:
    """`1,5`, `[1,5]` and `[1, 5]` all mean the pair (1, 5)."""
    try:
        if isinstance(value, str):
            low, high = (int(part) for part in value.strip().strip("[]()").split(","))
        else:
            low, high = value
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not a range; write it as MIN,MAX, for example 1,5") from None
    return low, high


def _check_order(value: tuple[int, int]) -> tuple[int, int]:
    low, high = value
    if low < 0:
        raise ValueError(f"a range cannot start below 0, got {low},{high}")
    if low > high:
        raise ValueError(f"min {low} is above max {high}; write the smaller number first")
    return value


Range = Annotated[tuple[int, int], BeforeValidator(_parse_range), AfterValidator(_check_order)]
Probability = Annotated[float, Field(gt=0.0, le=1.0)]


def _split_names(value: Any) -> Any:
    """A text with commas is a list of names. Null, which a Prefect form can send, is an empty list."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split_names)]


def _check_folder(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError(f"{value!r} is not a folder; name a folder")
    return os.path.expanduser(value)


# Options are parameters of the flow, so Prefect stores and shows them, and run.json records them.
_LOGIN = re.compile(r"(^|//)[^/?#]*@")
_PASSWORD = re.compile(r"//[^/@:]*:(?!\d+/)[^@]*@")  # also inside an fsspec chain, or with a / in it


def _check_address(value: str) -> str:
    if _LOGIN.search(value) or _PASSWORD.search(value):
        raise ValueError("an address must not contain a user or a password; a key comes from the environment")
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # the port is not a number
        good = False
    if value and not good:
        raise ValueError(f"{value!r} is not an address; write it as http://127.0.0.1:8000/v1")
    return value


def _check_storage(value: str) -> str:
    if _PASSWORD.search(value):  # some addresses contain a user: abfs://container@account…
        raise ValueError("an address must not contain a password; set it in the environment of each machine")
    return value


def _check_scheduler(value: str) -> str:
    if value and not re.fullmatch(r"(\w+://)?[^\s/]+:\d+", value):
        raise ValueError(f"{value!r} is not an address; write it as tcp://127.0.0.1:8786")
    return value


Sampler = Literal["uniform", "coherent", "coverage"]
Folder = Annotated[str, AfterValidator(_check_folder)]
Address = Annotated[str, AfterValidator(_check_address)]
Storage = Annotated[str, AfterValidator(_check_storage)]
Scheduler = Annotated[str, AfterValidator(_check_scheduler)]
