"""Copy shards between machines that share no folder, through any path or URL that fsspec understands."""

from __future__ import annotations

from pathlib import Path

import fsspec  # type: ignore[import-untyped]

from synth_core.atomic import write_atomic
from synth_core.errors import EnvironmentFault

# fsspec's errors have no common class: each file system raises those of its own library, and a missing
# package (s3fs, gcsfs) is an ImportError. So every exception is caught, but around fsspec alone.


def send(path: Path, storage: str) -> None:
    """Copy a shard to `storage`. Raises `EnvironmentFault` if it cannot be written."""
    data = path.read_bytes()
    try:
        with fsspec.open(_address(storage, path), "wb", auto_mkdir=True) as target:
            target.write(data)
    except Exception as error:
        raise EnvironmentFault(f"cannot send a shard to {storage}: {error}") from None


def fetch(path: Path, storage: str) -> bool:
    """Copy the shard of that name from `storage` to `path`. Returns False if there is none.

    Raises `EnvironmentFault` if `storage` cannot be read.
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
    """Return where the storage keeps a shard: under its stage and its file name."""
    return f"{storage.rstrip('/')}/{path.parent.name}/{path.name}"
