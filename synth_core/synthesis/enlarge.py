"""Finds other sizes for a finished program: constants for a GPU, and more shape sets near them.

A program's sizes are constants at module level, so other sizes are other numbers there. Each is tried under
FakeTensor on the meta device: this checks shapes and dtypes without arithmetic or memory. A constant that
cannot be enlarged keeps its value.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from synth_core.program.constants import constants_of, with_constants
from synth_core.records import GpuSizes

BENCH = {
    "batch_size": 64,
    "height": 112,
    "width": 112,
    "depth": 16,
    "length": 2048,
    "seq_len": 512,
    "vocab_size": 32768,
    "bag_size": 64,
    "num_classes": 1000,
}
BENCH_WIDTH = 8  # every other integer is a width; it is multiplied by this
MOST_CALLS = 2000  # a recurrence is unrolled, here and by the compiler; this limits its steps
MOST_BYTES = 8 << 30  # read and written by all operators together; above this, the batch is halved
EXTENTS = ("batch_size", "height", "width", "depth", "length", "seq_len", "bag_size")


def enlarge(source: str, sets: int, seed: int) -> GpuSizes:
    """Find GPU sizes for a program that `build` wrote, and up to `sets` more shape sets near them.

    It executes the source without a sandbox.
    Raises `ValueError` if the program does not run under FakeTensor with its own sizes.
    """
    constants = constants_of(source)
    cost = _measure(source, constants)
    if cost is None:
        raise ValueError("the program does not run under FakeTensor")
    constants, cost = _enlarge(source, constants, cost)
    return GpuSizes(
        constants=constants,
        flops=cost.flops,
        bytes=cost.moved,
        intensity=round(cost.flops / max(cost.moved, 1), 3),
        shape_sets=tuple(_vary(source, constants, sets, random.Random(seed))),
    )


@dataclass(frozen=True)
class _Cost:
    """moved: bytes of inputs, parameters and outputs. touched: bytes read and written by all operators."""

    flops: int
    moved: int
    touched: int


def _enlarge(source: str, constants: dict[str, int], cost: _Cost) -> tuple[dict[str, int], _Cost]:
    """Set every constant to its target. If the program does not run then, enlarge one constant at a time.

    If a constant cannot change alone, it is tried together with constants that may depend on it.
    """
    targets = {name: BENCH.get(name, BENCH_WIDTH * value) for name, value in constants.items()}
    whole = _measure(source, targets)
    if whole is not None:
        constants, cost = targets, whole
    else:
        small = dict(constants)
        for name, value in targets.items():
            if constants[name] != small[name]:
                continue  # changed together with an earlier one
            for moved in _together(name, value, small):
                found = _measure(source, {**constants, **moved})
                if found is not None:
                    constants, cost = {**constants, **moved}, found
                    break
    while cost.touched > MOST_BYTES and constants.get("batch_size", 1) > 1:
        constants = {**constants, "batch_size": constants["batch_size"] // 2}
        cost = _measure(source, constants) or cost
    return constants, cost


def _together(name: str, value: int, small: Mapping[str, int]) -> list[dict[str, int]]:
    """Changes to try for a constant: it alone; with all equal constants; with multiples and divisors too.

    Constants that change together keep their ratio.
    """
    size = small[name]
    equal = {other: value for other, its in small.items() if its == size}
    multiples = {
        other: its * value // size
        for other, its in small.items()
        if its % size == 0 or (size % its == 0 and value * its % size == 0)
    }
    tries: list[dict[str, int]] = []
    for moved in ({name: value}, equal, multiples):
        if moved not in tries:
            tries.append(moved)
    return tries


def _vary(source: str, constants: dict[str, int], sets: int, rng: random.Random) -> list[dict[str, int]]:
    """Up to `sets` different values of the extents with which the program runs."""
    found: list[dict[str, int]] = []
    names = [name for name in EXTENTS if name in constants]
    for _ in range(4 * sets):
        if len(found) == sets:
            break
        tried = dict(constants)
        for name in rng.sample(names, rng.randint(1, len(names))) if names else ():
            tried[name] = max(2, round(constants[name] * rng.choice((0.5, 0.75, 1.5, 2.0))))
        if tried != constants and tried not in found and _measure(source, tried) is not None:
            found.append(tried)
    return found


def _measure(source: str, constants: Mapping[str, int]) -> _Cost | None:
    """The cost at these sizes, or None if the program does not run with them."""
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # failures are expected
    torch.backends.mha.set_fastpath_enabled(False)  # it has no meta kernel
    env: dict[str, Any] = {}
    counter = FlopCounterMode(display=False)
    traffic = _Traffic()
    try:
        with torch.device("meta"):  # TransformerEncoder deep-copies its layers; FakeTensors cannot be copied
            exec(with_constants(source, constants), env)
            program = next(v for v in env.values() if isinstance(v, type) and issubclass(v, nn.Module))
            args, kwargs = env["get_init_inputs"]()
            module, inputs = program(*args, **kwargs).eval(), env["get_inputs"]()
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), counter, traffic:
            outputs = module(*inputs)
    except Exception:  # any exception means that the sizes do not fit
        return None
    ends = [*inputs, *module.parameters(), *tree_leaves(outputs)]
    return _Cost(
        flops=counter.get_total_flops() + traffic.elements,
        moved=sum(_size(tensor) for tensor in ends),
        touched=traffic.touched,
    )


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the elements written by operators without a flop formula, and the bytes that all operators use.

    Raises `ValueError` after more than `MOST_CALLS` calls.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0
        self.touched = 0
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise ValueError(f"more than {MOST_CALLS} calls")
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            written = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
            read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            self.touched += sum(_size(t) for t in (*written, *read))
            if func._overloadpacket not in flop_registry:
                self.elements += sum(t.numel() for t in written)
        return result


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
