"""A provider of the user's own, `package.module:function`; what it does amiss becomes a reply saying so."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from synth_core.errors import SynthError, UsageError
from synth_core.providers.call import Complete, Connection, Reply, Request, failed, raised
from synth_core.records import Outcome, Usage

_KINDS = {"outcome": Outcome, "text": str, "usage": Usage, "error": str}


def connect_function(name: str) -> Callable[[Connection], AbstractAsyncContextManager[Complete]]:
    """Make a provider of a plain `async def complete(request) -> Reply`; `UsageError` where there is none."""
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
    try:
        complete: Complete = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # whatever the user's module does
        said = " ".join(str(error).split())
        kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        raise UsageError(f"cannot load the provider {name}: {kind}{said}") from None
    if not callable(complete):
        raise UsageError(f"the provider {name} is no function")
    return complete


def _fault(reply: object) -> str:
    """What is wrong with what the function returned; empty where nothing is."""
    if not isinstance(reply, Reply):
        return f"{type(reply).__name__}, not a Reply"
    for field, kind in _KINDS.items():
        if not isinstance(value := getattr(reply, field), kind):
            return f"a Reply whose {field} is {value!r:.80}, not of type {kind.__name__}"
    return ""
