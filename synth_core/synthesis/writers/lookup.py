"""Embeddings: they read their own integer input. They start a track, or their result is added to a value."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value

VOCABULARIES = (32, 50, 64, 100, 128)


def embedding(d: Draft, x: Value | None, operator: str) -> Value:
    kind = x.kind if x else Kind.SEQUENCE
    if x is None:
        lead = d.sizes.shape(Kind.SEQUENCE, d.env)
        rows, width = lead[:2], lead[2]
    else:
        *rows, width = extents.texts(d, x)
    size = _vocabulary(d)
    table = d.attribute(_name(d, x), f"nn.Embedding({size}, {width})")
    shape = f"({', '.join(rows)}{',' if len(rows) == 1 else ''})"
    ids = d.input_from(f"torch.randint(0, {size}, {shape})", rows, kind, _ids(d, x))
    found = d.emit(f"{table}({ids})", kind, "embedded")
    return found if x is None else d.emit(f"{x} + {found}", kind, "h", role="merge")


def embedding_bag(d: Draft, x: Value | None, operator: str) -> Value:
    if x is None:
        batch, width = d.sizes.shape(Kind.VECTOR, d.env)
    else:
        batch, width = extents.texts(d, x)[0], extents.channels(d, x)
    mode = d.choose("", ', mode="sum"', ', mode="max"')
    size = _vocabulary(d)
    table = d.attribute("bag", f"nn.EmbeddingBag({size}, {width}{mode})")
    bag = d.sizes.constant("bag_size", d.rng.choice((5, 7, 9)), d.env)
    ids = d.input_from(f"torch.randint(0, {size}, ({batch}, {bag}))", (batch, bag), Kind.VECTOR, "items")
    found = d.emit(f"{table}({ids})", Kind.VECTOR, "embedded")
    if x is None:
        return found
    if x.kind is not Kind.VECTOR:
        raise CannotWrite("an EmbeddingBag gives one vector per row")
    return d.emit(f"{x} + {found}", Kind.VECTOR, "h", role="merge")


def _vocabulary(d: Draft) -> str:
    size = d.sizes.constants.get("vocab_size") or d.rng.choice(VOCABULARIES)
    return d.sizes.constant("vocab_size", size, d.env)


def _name(d: Draft, x: Value | None) -> str:
    return d.choose("embedding", "token_embedding") if x is None else d.choose("embedding", "type_embedding")


def _ids(d: Draft, x: Value | None) -> str:
    return d.choose("tokens", "ids", "input_ids") if x is None else d.choose("labels", "types", "segments")


WRITERS = {"Embedding": embedding, "EmbeddingBag": embedding_bag}
