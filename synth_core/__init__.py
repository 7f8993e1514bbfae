"""Synth: synthetic PyTorch programs, each one proved sound before it is kept.

This package is the library. It knows nothing of Prefect or Dask; `tasks` and `flows` build on it.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("synth-programs")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
