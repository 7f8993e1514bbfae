"""The vocabulary's names and torch's functions, joined once at import. Needs torch.

No name that arrives from elsewhere is ever looked up in a module: it is a key of FUNCTIONS, or it is refused.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable
from typing import Any

import torch

from synth_core.graph.vocabulary import GETTER, IDENTITY, METHOD, TARGETS

Function = Callable[..., Any]


def identity(value: torch.Tensor) -> torch.Tensor:
    """What nn.Identity does. A function of its own, so that a graph can hold it."""
    return value


def _find(name: str) -> Function | None:
    if name == IDENTITY:
        return identity
    if name.endswith(GETTER):
        return getattr
    if name.startswith(METHOD):
        return getattr(torch.Tensor, name.removeprefix(METHOD), None)
    module, _, function = name.rpartition(".")
    owner = operator if module == "operator" else importlib.import_module(module)
    found: Function | None = getattr(owner, function, None)
    return found


FUNCTIONS: dict[str, Function] = {name: function for name in TARGETS if (function := _find(name)) is not None}
"""Target -> what it calls, of those that the installed torch has. An attribute's is `getattr`."""

_NAMES: dict[int, str] = {
    id(function): name for name, function in reversed(FUNCTIONS.items()) if function is not getattr
}


def name_of(function: Function) -> str | None:
    """The target that records a call of `function`, or None where it is outside the vocabulary."""
    return _NAMES.get(id(function))
