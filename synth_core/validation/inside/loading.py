"""A program in memory: execute the text, build the class, draw the inputs, run from a known random state."""

from __future__ import annotations

import copy
import linecache
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch import nn

from synth_core.program import syntax
from synth_core.validation.inside.capture import tensors_in

Request = dict[str, Any]

FILE = "<program>"


class BrokenContract(Exception):
    """The program lacks what every program must have; the judge knows this name."""


@dataclass(frozen=True)
class Loaded:
    """A program in memory, with the random state behind it.

    inputs: pristine; every run gets copies, since a program may write to its inputs.
    variant: builds the program with other floating arguments: a scaling factor of 1.0 does not make the
        multiplication by it redundant.
    """

    module: nn.Module
    variant: Callable[[], nn.Module]
    inputs: list[Any]
    init_inputs: Any
    declared_inputs: Any
    draw_inputs: Callable[[int], list[Any]]


def load(request: Request) -> Loaded:
    """Raises what the program raises, and `BrokenContract`.

    On another device than the CPU everything is made there at once, which for full sizes is a hundred
    times faster. A program that does not bear that (it draws from a generator of its own, say) is made on the
    CPU and moved.
    """
    device = torch.device(request.get("device", "cpu"))
    if device.type != "cpu":
        try:
            return _load(request, device, device)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            give_back_memory()
    return _load(request, device, nullcontext())


def _load(request: Request, device: torch.device, making: AbstractContextManager[Any]) -> Loaded:
    source, seed = str(request["source"]), int(request["seed"])
    linecache.cache[FILE] = (len(source), None, syntax.lines(source), FILE)
    seed_everything(seed)
    namespace: dict[str, Any] = {"__name__": str(request["name"])}
    with making:
        exec(_compiled(source), namespace)
    kind = _program_class(namespace)
    for function in ("get_inputs", "get_init_inputs"):
        if not callable(namespace.get(function)):
            raise BrokenContract(f"no function {function}() at module level")
    seed_everything(seed)
    with making:
        init_inputs = namespace["get_init_inputs"]()
    args, kwargs = _as_call(init_inputs)

    def make(args: Any, kwargs: Any) -> nn.Module:
        seed_everything(seed)
        with making:
            return kind(*args, **kwargs).eval().to(device)

    module = make(args, kwargs)

    def draw(seed: int) -> tuple[Any, list[Any]]:
        seed_everything(seed)
        with making:
            declared = namespace["get_inputs"]()
        flat = [declared] if isinstance(declared, torch.Tensor) else list(declared)
        return declared, [t.to(device) if isinstance(t, torch.Tensor) else t for t in flat]

    declared, inputs = draw(seed)
    variant = partial(make, _varied(args), _varied(kwargs))
    return Loaded(module, variant, inputs, init_inputs, declared, lambda seed: draw(seed)[1])


def _varied(value: Any) -> Any:
    """Arguments with every floating number changed by a quarter."""
    match value:
        case float():
            return value * 1.25 or 0.25
        case list() | tuple():
            return type(value)(_varied(item) for item in value)
        case dict():
            return {key: _varied(item) for key, item in value.items()}
    return value


def _compiled(source: str) -> CodeType:
    try:
        return compile(source, FILE, "exec")
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes, surrogates, nesting
        raise SyntaxError(str(error) or "nested too deeply to compile") from error


def _program_class(namespace: dict[str, Any]) -> type[nn.Module]:
    classes = [
        value
        for value in namespace.values()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == namespace["__name__"]
    ]
    if len(classes) != 1:
        raise BrokenContract(f"{len(classes)} nn.Module classes at module level; write exactly one")
    return classes[0]


def is_pair(init_inputs: Any) -> bool:
    """Whether it is `[[args], {kwargs}]`, as the downstream contract wants it."""
    return (
        isinstance(init_inputs, list | tuple)
        and len(init_inputs) == 2
        and isinstance(init_inputs[0], list | tuple)
        and isinstance(init_inputs[1], dict)
    )


def _as_call(init_inputs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of the class; a plain list, as other collections have it, means positional ones."""
    if is_pair(init_inputs):
        return list(init_inputs[0]), dict(init_inputs[1])
    if isinstance(init_inputs, list | tuple):
        return list(init_inputs), {}
    raise BrokenContract(f"get_init_inputs returns {type(init_inputs).__name__}, not [[args], {{kwargs}}]")


def copies(inputs: Sequence[Any]) -> list[Any]:
    return [item.clone() if isinstance(item, torch.Tensor) else copy.deepcopy(item) for item in inputs]


class Runner:
    """Runs a module on copies of the inputs, in no_grad, from one random state.

    most: elements of an output that are looked at; of a larger one a regular sample. None: all.
    """

    def __init__(self, forward: Callable[..., Any], seed: int, most: int | None = None) -> None:
        self._forward = forward
        self._seed = seed
        self._most = most

    def raw(self, inputs: Sequence[Any], within: AbstractContextManager[Any] | None = None) -> Any:
        fresh = copies(inputs)
        seed_everything(self._seed)
        with torch.no_grad(), within or nullcontext():
            result = self._forward(*fresh)
        settle()
        return result

    def __call__(
        self, inputs: Sequence[Any], within: AbstractContextManager[Any] | None = None
    ) -> list[torch.Tensor]:
        return self.kept(self.raw(inputs, within))

    def kept(self, result: Any) -> list[torch.Tensor]:
        """Every tensor in the result, copied: a program may hand out a buffer that it writes to again."""
        return [sampled(tensor.detach(), self._most) for tensor in tensors_in(result)]


def sampled(tensor: torch.Tensor, most: int | None) -> torch.Tensor:
    """A copy, of at most `most` elements: of the longest axis every second one, until they are that few.

    The sample keeps the axes. A value that is not finite anywhere shows in it.
    """
    if most is None or tensor.numel() <= most:
        return tensor.clone()
    sample = tensor
    while sample.numel() > most:
        axis = max(range(sample.dim()), key=lambda d: sample.shape[d])
        sample = sample[(slice(None),) * axis + (slice(None, None, 2),)]
    sample = sample.clone()
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        sample[(0,) * sample.dim()] = float("nan")
    return sample


def settle() -> None:
    """Wait for the GPU, if one is in use: what broke there is raised here, and not in what comes next."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def give_back_memory() -> None:
    """Let others have the memory of a GPU that this process has used and keeps: blocks of one precision
    seldom fit the other, and both would be held."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def seed_everything(seed: int) -> None:
    """Torch, and the generators of Python and numpy, which a program may draw from as well."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed notes a stack trace for each absent device
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
