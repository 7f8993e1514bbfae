"""How each operator is written: one table, catalog name -> writer.

A writer takes the draft, the current value and the operator's name. It adds lines and returns the new value.
It raises `CannotWrite` if the operator does not fit; it does not repeat checks that torch makes. Sources
(Embedding) take None if there is no value yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.writers import (
    activation,
    arithmetic,
    convolution,
    dense,
    lookup,
    motif_attention,
    motif_dense,
    motif_image,
    normalisation,
    pooling,
    recurrence,
    reduction,
    reshaping,
    transformer,
)

Writer = Callable[[Draft, Value, str], Value]

WRITERS: Mapping[str, Writer] = {
    **activation.WRITERS,
    **arithmetic.WRITERS,
    **convolution.WRITERS,
    **dense.WRITERS,
    **lookup.WRITERS,
    **motif_attention.WRITERS,
    **motif_dense.WRITERS,
    **motif_image.WRITERS,
    **normalisation.WRITERS,
    **pooling.WRITERS,
    **recurrence.WRITERS,
    **reduction.WRITERS,
    **reshaping.WRITERS,
    **transformer.WRITERS,
}
