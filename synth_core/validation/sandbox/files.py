"""Files in memory without a path. Texts, evidence and judgements travel between processes in them."""

from __future__ import annotations

import fcntl
import os
import tempfile


def anonymous_file(name: str, data: bytes | None = None) -> int:
    """Descriptor of a new file without a path. The caller closes it.

    data: its contents. The file is then sealed, if the kernel can do so: nobody can change it any more.
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.write(data or b"")
            file.flush()
            return os.dup(file.fileno())
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if data is not None:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        seal(descriptor)
    return descriptor


def seal(descriptor: int) -> None:
    """Make the file unchangeable. Raises OSError if some process can still write to a mapping of it."""
    if hasattr(fcntl, "F_ADD_SEALS"):
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)


def contents(descriptor: int, most: int) -> bytes:
    """The contents of a file, from its start. Raises ValueError if it has more than `most` bytes."""
    size = os.fstat(descriptor).st_size
    if size > most:
        raise ValueError(f"{size:,} bytes, above {most:,}")
    parts, at = [], 0
    while part := os.pread(descriptor, size - at, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
