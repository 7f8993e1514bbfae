"""Shards on their way between machines that share no folder: any path or URL that fsspec understands."""

from __future__ import annotations

from pathlib import Path

import fsspec  # type: ignore[import-untyped]

from synth_core.errors import EnvironmentFault
from synth_core.store.atomic import write_atomic


def send(path: Path, storage: str) -> None:
    """Copy a shard to `storage`. Raises `EnvironmentFault` where that can't be written."""
    try:
        with fsspec.open(_address(storage, path), "wb", auto_mkdir=True) as target:
            target.write(path.read_bytes())
    except OSError as error:
        raise EnvironmentFault(f"cannot send a shard to {storage}: {error}") from None


def fetch(path: Path, storage: str) -> bool:
    """Copy the shard of that name from `storage` to `path`; False where there is none."""
    try:
        with fsspec.open(_address(storage, path), "rb") as source:
            data = source.read()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EnvironmentFault(f"cannot fetch a shard from {storage}: {error}") from None
    write_atomic(path, data)
    return True


def _address(storage: str, path: Path) -> str:
    """A shard's name says all, its stage and key included."""
    return f"{storage.rstrip('/')}/{path.parent.name}/{path.name}"
