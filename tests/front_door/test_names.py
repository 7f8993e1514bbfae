"""What `synth_core` exports: the names, their types, and that importing it loads nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import assert_type

import pytest

import synth_core
from synth_core.validation.public import Validation

HEAVY = {"torch", "prefect", "polars", "dask", "distributed", "pydantic", "numpy"}


def test_the_public_names() -> None:
    assert synth_core.__all__ == [
        "CannotWrite", "Category", "EnvironmentFault", "ScanResult", "Stage", "SynthError",
        "SynthesizedProgram", "Tier", "UsageError", "Validation", "ValidationSettings", "Validator",
        "__version__", "read_ledger", "scan", "synthesize", "validate",
    ]  # fmt: skip
    assert dir(synth_core) == synth_core.__all__
    assert all(getattr(synth_core, name) is not None for name in synth_core.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'validated'"):
        synth_core.validated  # type: ignore[attr-defined]  # noqa: B018


def loaded_by(script: str) -> set[str]:
    script = f"import sys\n{script}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_it_loads_nothing_heavy() -> None:
    assert loaded_by("import synth_core").isdisjoint(HEAVY)


def test_using_it_keeps_torch_and_prefect_out_of_this_process() -> None:
    script = "from synth_core import *\nsynthesize(['Linear', 'GELU'], seed=1)\nvalidate('x = (\\n')"
    loaded = loaded_by(script)
    assert "pydantic" in loaded
    assert loaded.isdisjoint({"torch", "prefect", "dask", "distributed"})


def test_types_are_seen_through_the_lazy_door() -> None:
    """mypy checks this: at run time `assert_type` does nothing."""
    assert_type(synth_core.validate(__file__), Validation)
