"""A provider of the user's own, `package.module:function`. Its mistakes become replies that name them."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from synth_core.errors import SynthError, UsageError
from synth_core.providers.call import Complete, Connection, Reply, Request, failed, raised
from synth_core.records import GpuSizes, Outcome, Usage

# Every field of `Reply` and its types. A wrong type must be found here: later, its origin is unknown.
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "outcome": (Outcome,),
    "text": (str,),
    "serving_model": (str,),
    "finish_reason": (str,),
    "usage": (Usage,),
    "sizes": (GpuSizes, type(None)),
    "error": (str,),
    "status": (int,),
    "retry_after": (int, float, type(None)),
    "seconds": (int, float),
    "raised": (bool,),
}


def connect_function(name: str) -> Callable[[Connection], AbstractAsyncContextManager[Complete]]:
    """Make a `connect` function from the user's `async def complete(request) -> Reply`.

    name: `package.module:function`. Python's path is searched first, then the current folder.
    Raises `UsageError` if the function cannot be loaded.
    """
    function = _load(name)

    async def complete(request: Request) -> Reply:
        try:
            reply: object = await function(request)
        except SynthError:
            raise
        except TimeoutError as error:
            return failed(Outcome.TIMEOUT, error)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the last two would end the event loop
            return raised(error, getattr(function, "__code__", None))
        if fault := _fault(reply):
            return failed(Outcome.BAD_REQUEST, f"{name} returned {fault}")
        assert isinstance(reply, Reply)
        return reply

    @asynccontextmanager
    async def connect(_: Connection) -> AsyncIterator[Complete]:
        yield complete

    return connect


def _load(name: str) -> Complete:
    module, _, function = name.partition(":")
    folder = os.getcwd()
    try:
        # An installed command does not search the current folder. Added last, so it hides no library.
        if folder not in sys.path:
            sys.path.append(folder)
        complete: Complete = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        said = " ".join(str(error).split())
        kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        where = f" (also searched in {folder})" if isinstance(error, ModuleNotFoundError) else ""
        raise UsageError(f"cannot load the provider {name}: {kind}{said}{where}") from None
    if not callable(complete):
        raise UsageError(f"the provider {name} is not a function")
    return complete


def _fault(reply: object) -> str:
    """What is wrong with the function's return value. Empty if nothing is."""
    if not isinstance(reply, Reply):
        return f"{type(reply).__name__}, not a Reply"
    for field, types in _FIELD_TYPES.items():
        if not isinstance(value := getattr(reply, field), types):
            kind = " or ".join("None" if one is type(None) else one.__name__ for one in types)
            return f"a Reply whose {field} is {value!r:.80}, not of type {kind}"
        if isinstance(value, str) and not _is_text(value):
            return f"a Reply whose {field} holds a lone surrogate, which cannot be written to a file"
    return _value_fault(reply)


def _value_fault(reply: Reply) -> str:
    """What is wrong with the values of a reply with correct types. Empty if nothing is."""
    if reply.outcome is Outcome.OVER_BUDGET:  # its candidate would count as never asked
        return f"{reply.outcome!r}, which is reserved for the run's own budgets"
    counts = reply.usage.model_dump(exclude={"cost_usd"})  # the cost is computed here
    if wrong := [name for name, count in counts.items() if count < 0]:
        return f"a Reply whose usage.{wrong[0]} is {counts[wrong[0]]}"
    if reply.retry_after is not None and not (math.isfinite(reply.retry_after) and reply.retry_after >= 0):
        return f"a Reply whose retry_after is {reply.retry_after}, not a number of seconds"
    return ""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
