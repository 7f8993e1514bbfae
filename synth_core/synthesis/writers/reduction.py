"""Reductions: they reduce spatial or sequence axes, or centre and scale a value."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis import soundness
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Value

NAMES = {"Sum": "total", "Mean": "mean", "Max": "peak", "Min": "low", "LogSumExp": "lse"}
FUNCTIONS = {"Sum": "sum", "Mean": "mean", "Max": "amax", "Min": "amin", "LogSumExp": "logsumexp"}


def reduce(d: Draft, x: Value, operator: str) -> Value:
    name = FUNCTIONS[operator]
    if x.kind is not Kind.VECTOR and d.bridge_to is Kind.VECTOR:
        return _collapse(d, x, name)
    axis = d.rng.choice([a for a in (1, 2, -1) if a < len(x.shape) and x.shape[a] > 1] or [1])
    kept = d.emit(
        d.choose(f"{x}.{name}(dim={axis}, keepdim=True)", f"torch.{name}({x}, dim={axis}, keepdim=True)"),
        x.kind,
        NAMES[operator],
    )
    soundness.check(kept)
    text = {
        "Sum": f"{x} / (1.0 + {kept}.abs())",
        "Mean": f"{x} - {kept}",
        "Max": f"{x} - {kept}",
        "Min": f"{x} - {kept}",
        "LogSumExp": f"{x} - {kept}",
    }[operator]
    return d.emit(text, x.kind, "h", role="merge")


def _collapse(d: Draft, x: Value, name: str) -> Value:
    axes = [1] if x.kind is Kind.SEQUENCE else list(range(2, len(x.shape)))
    dims = str(axes[0]) if len(axes) == 1 else str(tuple(axes))
    if name == "amax" and len(axes) == 1 and d.rng.random() < 0.5:
        return d.emit(f"torch.max({x}, dim={dims}).values", Kind.VECTOR, "pooled")
    return d.emit(
        d.choose(f"{x}.{name}(dim={dims})", f"torch.{name}({x}, dim={dims})"), Kind.VECTOR, "pooled"
    )


WRITERS = dict.fromkeys(FUNCTIONS, reduce)
