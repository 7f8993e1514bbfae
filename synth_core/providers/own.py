"""A provider of the user's own, `package.module:function`; what it does amiss becomes a reply saying so."""

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

# Every field of `Reply` and its types; a wrong one would fail later, where nobody knows whose it is.
_KINDS: dict[str, tuple[type, ...]] = {
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
    """Make a provider of a plain `async def complete(request) -> Reply`; `UsageError` where there is none.

    Its module is looked for where Python looks, then in the current folder.
    """
    function = _load(name)

    async def complete(request: Request) -> Reply:
        try:
            reply: object = await function(request)
        except SynthError:
            raise
        except TimeoutError as error:
            return failed(Outcome.TIMEOUT, error)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the latter would end everybody's loop
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
        # An installed command does not look in its user's folder. Last: no file there hides a library.
        if folder not in sys.path:
            sys.path.append(folder)
        complete: Complete = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # whatever the user's module does
        said = " ".join(str(error).split())
        kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        where = f" (looked for in {folder} too)" if isinstance(error, ModuleNotFoundError) else ""
        raise UsageError(f"cannot load the provider {name}: {kind}{said}{where}") from None
    if not callable(complete):
        raise UsageError(f"the provider {name} is no function")
    return complete


def _fault(reply: object) -> str:
    """What is wrong with what the function returned; empty where nothing is."""
    if not isinstance(reply, Reply):
        return f"{type(reply).__name__}, not a Reply"
    for field, kinds in _KINDS.items():
        if not isinstance(value := getattr(reply, field), kinds):
            kind = " or ".join("None" if one is type(None) else one.__name__ for one in kinds)
            return f"a Reply whose {field} is {value!r:.80}, not of type {kind}"
        if isinstance(value, str) and not _is_text(value):
            return f"a Reply whose {field} holds half a surrogate pair, which no file can"
    return _absurd(reply)


def _absurd(reply: Reply) -> str:
    """What no reply can mean, though its types are right; empty where it can."""
    if reply.outcome is Outcome.OVER_BUDGET:  # its candidate would count as never asked
        return f"{reply.outcome!r}, which only a budget of the run's says"
    counts = reply.usage.model_dump(exclude={"cost_usd"})  # which is reckoned here
    if wrong := [name for name, count in counts.items() if count < 0]:
        return f"a Reply whose usage.{wrong[0]} is {counts[wrong[0]]}"
    if reply.retry_after is not None and not (math.isfinite(reply.retry_after) and reply.retry_after >= 0):
        return f"a Reply whose retry_after is {reply.retry_after}, no number of seconds"
    return ""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
