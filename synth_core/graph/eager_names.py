"""Calls of a record by the names that they have while a program runs eagerly. No torch.

Dynamo writes `x + y` as `operator.add`, and looks into some functions of torch.nn.functional. A program that
runs eagerly calls `torch.Tensor.add`, and what the catalog and the filters know are those names.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from synth_core.graph.record import Call
from synth_core.graph.vocabulary import IDENTITY

_OPERATORS = {
    **{name: name for name in ("abs", "add", "ge", "gt", "le", "lt", "matmul", "mul", "ne", "neg", "sub")},
    **{name: f"__{name.strip('_')}__" for name in ("and_", "eq", "floordiv", "getitem", "lshift", "or_")},
    **{name: f"__{name}__" for name in ("pow", "rshift", "setitem", "xor")},
    **{name: f"__{name}__" for name in ("iand", "ilshift", "ior", "ipow", "irshift", "ixor")},
    "truediv": "div",
    "mod": "remainder",
    "pos": "positive",
    "invert": "__invert__",
    "iadd": "add_",
    "isub": "sub_",
    "imul": "mul_",
    "itruediv": "div_",
    "ifloordiv": "floor_divide_",
    "imod": "remainder_",
    "imatmul": "matmul",
}
_REFLECTED = {
    **{name: f"__r{name}__" for name in ("sub", "truediv", "floordiv", "mod", "pow", "lshift", "rshift")},
    "and_": "bitwise_and",
    "or_": "bitwise_or",
    "xor": "bitwise_xor",
    "lt": "gt",
    "le": "ge",
    "gt": "lt",
    "ge": "le",
}
"""Names where the left side is a number: `2 - x` is torch.Tensor.__rsub__ of x and 2."""

_INNER = {
    "cross_entropy_loss": "cross_entropy",
    "log_sigmoid": "logsigmoid",
    "nll_loss_nd": "nll_loss",
    **{name: name for name in ("elu_", "gelu_", "hardsigmoid_", "hardswish_", "hardtanh_", "leaky_relu_")},
    **{name: name for name in ("mish", "mish_", "pad", "relu6", "relu6_", "silu", "silu_")},
    **{name: name for name in ("softplus", "softshrink")},
}
"""What torch.nn.functional calls inside -> its public name; everything else there upsamples."""


def name_of(call: Call) -> str:
    """The eager name of what a record's call calls."""
    owner, _, name = call.target.rpartition(".")
    if call.target == IDENTITY:
        return "torch.nn.modules.linear.Identity"
    if owner == "operator":
        reflected = _REFLECTED.get(name) if _reflected(call) else None
        return f"torch.Tensor.{reflected or _OPERATORS[name]}"
    if owner == "torch._C._nn":
        return f"torch.nn.functional.{_INNER.get(name, 'interpolate')}"
    return call.target


def arguments_of(call: Call, count: Callable[[str], int]) -> str:
    """The arguments as JSON; `$0`, `$1`, … stand for the tensors in order. count: tensors of a value."""
    numbers = itertools.count()

    def plain(value: Any) -> Any:
        match value:
            case {"ref": str(name)}:
                tensors = [f"${next(numbers)}" for _ in range(count(name))]
                return tensors[0] if len(tensors) == 1 else tensors
            case {"tuple": items}:
                return [plain(item) for item in items]
            case {"slice": [start, stop, step]}:
                return {"slice": [plain(start), plain(stop), plain(step)]}
            case {"dtype": name} | {"layout": name} | {"memory_format": name}:
                return f"torch.{name}"
            case {"ellipsis": True}:
                return "..."
            case {"float": str(text)}:
                return float(text)
            case {"complex": [real, imaginary]}:
                return str(complex(real, imaginary))
            case {"device": str(device)}:
                return device
            case list() | tuple():
                return [plain(item) for item in value]
        return value

    if call.target == IDENTITY:
        return ""
    args = list(reversed(call.args)) if _reflected(call) else list(call.args)
    kwargs: Mapping[str, Any] = call.kwargs
    return json.dumps([plain(args), {k: plain(v) for k, v in kwargs.items()}], separators=(",", ":"))


def _reflected(call: Call) -> bool:
    """Whether an operator of Python finds a number to the left of a tensor."""
    if not call.target.startswith("operator.") or len(call.args) != 2:
        return False
    left, right = call.args
    return not _is_value(left) and _is_value(right)


def _is_value(argument: Any) -> bool:
    return isinstance(argument, dict) and "ref" in argument
