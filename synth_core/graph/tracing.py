"""Dynamo set up for a capture, and what it says in words. Runs beside the program."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from synth_core.graph.encode import NotCapturable
from synth_core.graph.targets import FUNCTIONS, identity

# Dynamo would look into these functions, and the operators of the catalog would be lost.
_WHOLE = tuple(FUNCTIONS[name] for name in ("torch.nn.functional.lp_pool3d",) if name in FUNCTIONS)


@contextlib.contextmanager
def tracing(effects: list[str]) -> Iterator[None]:
    """Dynamo as a capture needs it. effects: fills with what forward writes to beside tensors.

    Transformer layers have a fast path in eager that no compiler sees; it is off, and back after the capture.
    """
    from torch._dynamo.side_effects import SideEffects

    torch._dynamo.reset()
    for function in (identity, *_WHOLE):
        torch._dynamo.allow_in_graph(function)  # type: ignore[no-untyped-call]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    replay = SideEffects.codegen_update_mutated

    def seen(self: Any, *args: Any, **kwargs: Any) -> Any:
        effects.extend(_written(self))
        return replay(self, *args, **kwargs)

    settings = torch._dynamo.config.patch(allow_rnn=True, suppress_errors=False, verbose=False)
    watched = mock.patch.object(SideEffects, "codegen_update_mutated", seen)
    recorded = mock.patch.object(nn.Identity, "forward", _forward_of_identity)
    with settings, watched, recorded, _short_recurrences():
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def _short_recurrences() -> Iterator[None]:
    """Dynamo runs a recurrent layer on tensors without values, step by step, to learn the shapes it gives.

    One step tells them too, and a hundred take seconds. A torch without these functions traces them all.
    """
    from torch._decomp import decompositions

    with contextlib.ExitStack() as patches:
        for name in ("one_layer_rnn", "one_layer_lstm"):
            if whole := getattr(decompositions, name, None):
                patches.enter_context(mock.patch.object(decompositions, name, _first_step(whole)))
        yield


def _first_step(whole: Callable[..., Any]) -> Callable[..., Any]:
    def step(sequence: torch.Tensor, *rest: Any, **named: Any) -> tuple[torch.Tensor, Any]:
        if not isinstance(sequence, FakeTensor):
            result: tuple[torch.Tensor, Any] = whole(sequence, *rest, **named)
            return result
        first, last = whole(sequence[:1], *rest, **named)
        return first.new_empty((len(sequence), *first.shape[1:])), last

    return step


def _forward_of_identity(self: nn.Identity, input: Any) -> Any:  # noqa: A002
    """nn.Identity makes no call, yet it is an operator that a program may be asked to hold."""
    return identity(input) if isinstance(input, torch.Tensor) else input


def _written(effects: Any) -> list[str]:
    """Sources of what Dynamo writes back after the graph: `self.count`, `self.seen`, `G['total']`."""
    found = []
    for variable in effects._get_modified_vars():
        source = getattr(variable, "source", None)
        if source is None or type(source).__name__ == "TempLocalSource":
            continue
        name = readable(source.name if isinstance(source.name, str) else source.name())
        whole = name.startswith("G[")  # a global name, which Dynamo writes as an attribute of itself
        attributes = () if whole else effects.store_attr_mutations.get(variable, ())
        found += [f"{name}.{attribute}" for attribute in attributes] or [name]
    return [name[:500] for name in found]


def readable(source: str) -> str:
    """`self.a.0.count` of Dynamo's `L['self']._modules['a']._modules['0'].count`."""
    plain = re.sub(r"\._(?:modules|parameters|buffers)\[['\"]([^'\"]+)['\"]\]", r".\1", source)
    return re.sub(r"^L\['(\w+)'\]", r"\1", plain)


def explained(error: Exception) -> Exception:
    """Dynamo's exceptions as a named reason; anything else is the program's own."""
    for cause in _chain(error):
        if isinstance(cause, NotCapturable):
            return cause
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if not {"TorchDynamoException", "BackendCompilerFailed"} & set(kinds):
        return error
    message = " ".join(str(error).split("\n\n")[0].split())[:600]
    known = {"Unsupported", "UserError", "UncapturedHigherOrderOpError"} & set(kinds)
    return NotCapturable("graph_break" if known else "dynamo", f"{kinds[0]}: {message}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
