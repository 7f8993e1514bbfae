"""Synth: synthetic PyTorch programs, each one proved sound before it is kept.

This package is the library. It knows nothing of Prefect or Dask; `tasks` and `flows` build on it.
`validate(path)` is its public call for one program file.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synth_core.validation.public import validate

try:
    __version__ = version("synth-programs")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "validate"]


def __getattr__(name: str) -> Any:
    """Load `validate` when it is asked for: the sandboxed children import this package with torch alone."""
    if name == "validate":
        from synth_core.validation.public import validate

        return validate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
