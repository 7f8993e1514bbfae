"""Operators that turn one kind of value into another, such as an image into a sequence."""

from __future__ import annotations

from collections.abc import Mapping

from synth_core.operators.operator import Kind

TO_VECTOR = frozenset(
    {"Sum", "Mean", "Max", "Min", "LogSumExp", "GlobalAvgPool", "Flatten"}
    | {"AttentionPooling", "MaskedMean", "StatisticsPooling"}
    | {f"Adaptive{name}Pool{rank}d" for name in ("Avg", "Max") for rank in (1, 2, 3)}
)
BRIDGES: Mapping[tuple[Kind, Kind], frozenset[str]] = {
    (Kind.IMAGE, Kind.SEQUENCE): frozenset({"Flatten", "Unfold", "PatchEmbedding"}),
    **{(kind, Kind.VECTOR): TO_VECTOR for kind in Kind if kind is not Kind.VECTOR},
}
"""(from, to) -> operators that convert a value from one kind to the other."""

CHANGERS = frozenset({"Flatten", "Unfold", "Fold", "Unflatten", "PatchEmbedding"})
"""Operators whose result always has another kind than their input. One of them per program is enough."""
