"""Activations in their usual spellings. Bounds are chosen from the actual values."""

from __future__ import annotations

import torch

from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value

# A spelling with `nn.` is a module. `{x}` is the value, `{d}` the channel or feature axis.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "ReLU": ("nn.ReLU()", "F.relu({x})", "torch.relu({x})", "{x}.relu()"),
    "Sigmoid": ("nn.Sigmoid()", "torch.sigmoid({x})", "{x}.sigmoid()"),
    "Tanh": ("nn.Tanh()", "torch.tanh({x})", "{x}.tanh()"),
    "LeakyReLU": (
        "nn.LeakyReLU(0.1)",
        "nn.LeakyReLU(0.2)",
        "F.leaky_relu({x}, 0.1)",
        "F.leaky_relu({x}, negative_slope=0.2)",
    ),
    "GELU": ("nn.GELU()", 'nn.GELU(approximate="tanh")', "F.gelu({x})", 'F.gelu({x}, approximate="tanh")'),
    "SiLU": ("nn.SiLU()", "F.silu({x})"),
    "Softmax": (
        "nn.Softmax(dim={d})",
        "F.softmax({x}, dim={d})",
        "torch.softmax({x}, dim={d})",
        "{x}.softmax(dim={d})",
    ),
    "Mish": ("nn.Mish()", "F.mish({x})"),
    "Hardswish": ("nn.Hardswish()", "F.hardswish({x})"),
    "ELU": ("nn.ELU()", "nn.ELU(alpha=0.5)", "F.elu({x})", "F.elu({x}, alpha=1.5)"),
    "CELU": ("nn.CELU()", "nn.CELU(alpha=0.5)", "F.celu({x}, alpha=0.5)"),
    "SELU": ("nn.SELU()", "F.selu({x})"),
    "ReLU6": ("nn.ReLU6()", "F.relu6({x})"),
    "RReLU": ("nn.RReLU()", "nn.RReLU(0.1, 0.3)", "F.rrelu({x})"),
    "LogSigmoid": ("nn.LogSigmoid()", "F.logsigmoid({x})"),
    "Softmin": ("nn.Softmin(dim={d})", "F.softmin({x}, dim={d})"),
    "Softplus": ("nn.Softplus()", "nn.Softplus(beta=2)", "F.softplus({x})"),
    "Softsign": ("nn.Softsign()", "F.softsign({x})"),
    "Hardsigmoid": ("nn.Hardsigmoid()", "F.hardsigmoid({x})"),
    "Tanhshrink": ("nn.Tanhshrink()", "F.tanhshrink({x})"),
    "LogSoftmax": (
        "nn.LogSoftmax(dim={d})",
        "F.log_softmax({x}, dim={d})",
        "torch.log_softmax({x}, dim={d})",
    ),
    "Softmax2d": ("nn.Softmax2d()",),
    "Softshrink": ("nn.Softshrink({low})", "F.softshrink({x}, {low})"),
    "Hardshrink": ("nn.Hardshrink({low})", "F.hardshrink({x}, lambd={low})"),
    "Threshold": ("nn.Threshold({middle}, {floor})", "F.threshold({x}, {middle}, {floor})"),
    "Hardtanh": (
        "nn.Hardtanh({bottom}, {top})",
        "nn.Hardtanh(min_val={bottom}, max_val={top})",
        "F.hardtanh({x}, {bottom}, {top})",
    ),
}

HINTS = {"Sigmoid": "gate", "Hardsigmoid": "gate", "Softmax": "weights", "Softmin": "weights"}
ALONG_AN_AXIS = frozenset({"Softmax", "Softmin", "LogSoftmax", "Softmax2d"})


def quantile(x: Value, share: float, *, magnitude: bool = False) -> float:
    """A quantile of the actual values (or of their magnitudes), rounded as by `tidy`."""
    values = x.tensor.float().abs() if magnitude else x.tensor.float()
    exact = float(torch.quantile(values.flatten()[:4096], share))
    return tidy(exact)


def tidy(number: float) -> float:
    """Round to one significant digit below 0.1, to steps of 0.05 below 1, to halves above."""
    if abs(number) < 0.1:
        return float(f"{number:.0e}")
    step = 0.05 if abs(number) < 1 else 0.5
    return round(round(number / step) * step, 2)


def write(d: Draft, x: Value, operator: str) -> Value:
    text = d.rng.choice(SPELLINGS[operator])
    axis = x.axis
    if operator in ALONG_AN_AXIS:
        if len(x.shape) > 2 and operator != "Softmax2d" and d.rng.random() < 0.3:
            axis = d.rng.choice([a for a in (1, 2, -1) if a != x.axis])
        if x.shape[axis] < 3:
            raise CannotWrite("a softmax over so few elements says little")
    filled = text.format(x=x, d=axis, **_bounds(d, x, operator))
    if text.startswith("nn."):
        filled = f"{d.attribute(operator.lower() if d.rng.random() < 0.5 else 'act', filled)}({x})"
    return d.emit(filled, x.kind, HINTS.get(operator, "h"))


def _bounds(d: Draft, x: Value, operator: str) -> dict[str, float]:
    match operator:
        case "Softshrink" | "Hardshrink":
            low = quantile(x, d.rng.uniform(0.25, 0.5), magnitude=True)
            if low <= 0:
                raise CannotWrite("most values are zero")
            return {"low": low}
        case "Threshold":
            middle = quantile(x, d.rng.uniform(0.3, 0.6))
            return {"middle": middle, "floor": 0.0 if middle > 0 else tidy(middle - 0.5)}
        case "Hardtanh":
            bottom, top = quantile(x, d.rng.uniform(0.1, 0.25)), quantile(x, d.rng.uniform(0.75, 0.9))
            if bottom >= top:
                raise CannotWrite("the values hardly differ")
            return {"bottom": bottom, "top": top}
    return {}


def prelu(d: Draft, x: Value, operator: str) -> Value:
    shared = x.kind is Kind.SEQUENCE or d.rng.random() < 0.4
    count = "" if shared else f"num_parameters={extents.channels(d, x)}"
    return d.emit(f"{d.attribute('prelu', f'nn.PReLU({count})')}({x})", x.kind, "h")


def glu(d: Draft, x: Value, operator: str) -> Value:
    text = d.choose(f"F.glu({x}, dim={x.axis})", f"{d.attribute('glu', f'nn.GLU(dim={x.axis})')}({x})")
    return d.emit(text, x.kind, "gated")


WRITERS = {**dict.fromkeys(SPELLINGS, write), "PReLU": prelu, "GLU": glu}
