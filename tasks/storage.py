"""Shards on their way between machines that share no folder: any path or URL that fsspec understands."""

from __future__ import annotations

from pathlib import Path

import fsspec  # type: ignore[import-untyped]

from synth_core.atomic import write_atomic
from synth_core.errors import EnvironmentFault

# What goes wrong has no common kind: each of fsspec's file systems lets its own library's faults through, and
# one whose package is missing (s3fs, gcsfs) is an ImportError. So all of them are caught, around it alone.


def send(path: Path, storage: str) -> None:
    """Copy a shard to `storage`. Raises `EnvironmentFault` where that can't be written."""
    data = path.read_bytes()
    try:
        with fsspec.open(_address(storage, path), "wb", auto_mkdir=True) as target:
            target.write(data)
    except Exception as error:
        raise EnvironmentFault(f"cannot send a shard to {storage}: {error}") from None


def fetch(path: Path, storage: str) -> bool:
    """Copy the shard of that name from `storage` to `path`; False where there is none.

    Raises `EnvironmentFault` where `storage` can't be read.
    """
    try:
        with fsspec.open(_address(storage, path), "rb") as source:
            data = source.read()
    except FileNotFoundError:
        return False
    except Exception as error:
        raise EnvironmentFault(f"cannot fetch a shard from {storage}: {error}") from None
    write_atomic(path, data)
    return True


def _address(storage: str, path: Path) -> str:
    """A shard's name says all, its stage and key included."""
    return f"{storage.rstrip('/')}/{path.parent.name}/{path.name}"
