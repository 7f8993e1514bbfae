"""Files in memory that no path leads to: how texts, evidence and judgements travel between processes."""

from __future__ import annotations

import fcntl
import os
import tempfile


def anonymous_file(name: str, data: bytes | None = None) -> int:
    """Descriptor of a fresh file that no path leads to; the caller closes it.

    data: what it holds; where the kernel can, nobody can change it any more.
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
    """Let nobody change the file any more; raises OSError where somebody still maps it to write."""
    if hasattr(fcntl, "F_ADD_SEALS"):
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)


def contents(descriptor: int, most: int) -> bytes:
    """What is in a file that others may hold open, whatever its offset; raises ValueError above `most`."""
    size = os.fstat(descriptor).st_size
    if size > most:
        raise ValueError(f"{size:,} bytes, above {most:,}")
    parts, at = [], 0
    while part := os.pread(descriptor, size - at, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
