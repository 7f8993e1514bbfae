"""Synth: synthetic PyTorch programs, each one proved sound before it is kept.

This package is the library. It knows nothing of Prefect or Dask; `tasks` and `flows` build on it.
What a Python user calls is exported here and loaded when it is asked for: the sandboxed children import this
package with torch alone, and `import synth_core` costs nothing.

    synthesize    operators and a seed -> a program
    validate      a program -> proved sound, or why not; Validator: many programs, warm workers
    scan          a program -> the KernelBench problem that it is like
    read_ledger   a folder -> all candidates of its runs, kept and dropped, as a Polars frame
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synth_core.errors import CannotWrite, EnvironmentFault, SynthError, UsageError
    from synth_core.filtering.contamination import ScanResult, scan
    from synth_core.records import Category, Stage, Tier
    from synth_core.settings import ValidationSettings
    from synth_core.store.ledger import read_ledger
    from synth_core.validation.public import Validation, Validator, validate
    from synth_core.writing import SynthesizedProgram, synthesize

    __version__: str

__all__ = [
    "CannotWrite",
    "Category",
    "EnvironmentFault",
    "ScanResult",
    "Stage",
    "SynthError",
    "SynthesizedProgram",
    "Tier",
    "UsageError",
    "Validation",
    "ValidationSettings",
    "Validator",
    "__version__",
    "read_ledger",
    "scan",
    "synthesize",
    "validate",
]

_MODULES = {
    "errors": ("CannotWrite", "EnvironmentFault", "SynthError", "UsageError"),
    "filtering.contamination": ("ScanResult", "scan"),
    "records": ("Category", "Stage", "Tier"),
    "settings": ("ValidationSettings",),
    "store.ledger": ("read_ledger",),
    "validation.public": ("Validation", "Validator", "validate"),
    "writing": ("SynthesizedProgram", "synthesize"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # else a type checker would take every misspelt name for an object

    def __getattr__(name: str) -> object:
        """Load a public name when it is first asked for."""
        if name == "__version__":
            value = _installed_version()
        elif name in _MODULE_OF:
            value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("synth-programs")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0"
