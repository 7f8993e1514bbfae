"""Operators that turn one kind of value into another: an image into a sequence, anything into a vector."""

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
"""Operators that carry a value from one kind to another by what they do."""

CHANGERS = frozenset({"Flatten", "Unfold", "Fold", "Unflatten", "PatchEmbedding"})
"""Operators that leave another kind than they take, whatever comes next; one a program is plenty."""
