"""The record of one captured graph, format `synth-graph/1`. docs/graph.md describes it. No torch.

A record that parses is well formed: its targets are in the closed vocabulary, each value is made before it is
read, and its sizes are bounded. What it says of itself may still be a lie; the docs say who checks what.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, WithJsonSchema, model_validator

from synth_core.graph.vocabulary import KNOWN
from synth_core.records import Record

FORMAT: Final = "synth-graph/1"
MAX_BYTES = 8 * 2**20  # of JSON: an unrolled loop of some 10,000 calls takes 2 MiB
MAX_CALLS = 20_000
MAX_LEAVES = 5_000
MAX_ITEMS = 4_096  # of one list, and of the values in one call's arguments
MAX_NESTING = 8
MAX_INT = 2**63
MAX_TEXT = 200

DTYPES = frozenset(
    """
    bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 bfloat16 float32 float64 complex32
    complex64 complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz
    """.split()  # noqa: SIM905
)
LAYOUTS = frozenset({"strided"})
MEMORY_FORMATS = frozenset({"contiguous_format", "preserve_format", "channels_last", "channels_last_3d"})
FLOATS = frozenset({"inf", "-inf", "nan"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?")

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Size = Annotated[int, Field(ge=0, lt=MAX_INT)]
Shape = Annotated[tuple[Size, ...], Field(max_length=64)]
Dtype = Annotated[str, Field(json_schema_extra={"enum": sorted(DTYPES)})]

_ARGUMENT_SCHEMA = {
    "description": "null, boolean, number, string, list, or an object with exactly one of the keys below",
    "anyOf": [
        {"type": ["null", "boolean", "number", "string"]},
        {"type": "array"},
        *(
            {
                "type": "object",
                "properties": {key: kind},
                "required": [key],
                "additionalProperties": False,
            }
            for key, kind in {
                "ref": {"type": "string"},
                "tuple": {"type": "array"},
                "dict": {"type": "object"},
                "slice": {"type": "array", "minItems": 3, "maxItems": 3},
                "complex": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
                "float": {"enum": sorted(FLOATS)},
                "dtype": {"enum": sorted(DTYPES)},
                "device": {"type": "string", "pattern": f"^({_DEVICE.pattern})$"},
                "layout": {"enum": sorted(LAYOUTS)},
                "memory_format": {"enum": sorted(MEMORY_FORMATS)},
                "ellipsis": {"const": True},
            }.items()
        ),
    ],
}
Argument = Annotated[Any, WithJsonSchema(_ARGUMENT_SCHEMA)]


class BadGraph(ValueError):
    """A record that is malformed, or that calls what no graph may call."""


class Leaf(Record):
    """A tensor that comes from outside: one of forward's inputs, a parameter, a buffer, or any other."""

    name: Name
    kind: Literal["input", "parameter", "buffer", "constant"]
    path: Annotated[str, Field(max_length=500)] = Field(
        description="Of an input, its place among forward's arguments (`0`, `1.mask`); of a parameter or "
        "buffer, its path in the module (`layers.0.weight`); of a constant, where Dynamo found it"
    )
    aliases: tuple[Annotated[str, Field(max_length=500)], ...] = Field(
        default=(), max_length=MAX_ITEMS, description="Further paths of a parameter that several layers share"
    )
    shape: Shape
    stride: Shape = Field(description="In elements; no two elements share memory, and there are no gaps")
    dtype: Dtype
    requires_grad: bool = Field(
        default=False,
        description="As forward sees it; torch picks other kernels by it even where none is taken",
    )


class Result(Record):
    """A tensor that a call returned. memory: equal numbers share memory."""

    shape: Shape
    dtype: Dtype
    memory: Size


class Layer(Record):
    """One call of a module of torch.nn. A claim of the process that ran the program; see graph/nodes.py."""

    kind: Text = Field(description="Class, by where it is defined: torch.nn.modules.conv.Conv2d")
    path: Annotated[str, Field(max_length=500)]


class Call(Record):
    """One call of torch. The value that it returns is called `name`."""

    name: Name
    target: Text = Field(description="One name of the closed vocabulary (graph/vocabulary.py)")
    args: tuple[Argument, ...] = Field(default=(), max_length=MAX_ITEMS)
    kwargs: dict[Name, Argument] = Field(default={}, max_length=MAX_ITEMS)
    layer: Size | None = Field(default=None, description="Position in `layers`")
    results: tuple[Result | None, ...] | None = Field(
        default=None, description="The tensors returned; absent until a trusted process has run the call"
    )
    many: bool = Field(default=False, description="It returned a tuple, whose items `results` are")
    passes: Name | None = Field(
        default=None, description="The operand that it returned as it was: a dropout in eval mode does"
    )
    writes: tuple[Size, ...] = Field(default=(), description="Memory that it wrote to, as in Result.memory")


class GraphRecord(Record):
    """One graph: leaves, then calls in the order in which forward makes them, then the outputs."""

    format: Literal["synth-graph/1"] = FORMAT
    torch: Text = Field(description="Version that captured it")
    leaves: tuple[Leaf, ...] = Field(
        max_length=MAX_LEAVES,
        description="All inputs in forward's order, then all parameters, all buffers, and the constants read",
    )
    arguments: Argument = Field(description="forward's arguments, with references to inputs in it")
    placeholders: tuple[Name, ...] = Field(
        max_length=MAX_LEAVES, description="The leaves that are read, in torch.compile's order"
    )
    calls: tuple[Call, ...] = Field(max_length=MAX_CALLS)
    output: Argument = Field(description="What forward returns, with references in it")
    layers: tuple[Layer, ...] = Field(default=(), max_length=MAX_CALLS)
    side_effects: tuple[Annotated[str, Field(max_length=500)], ...] = Field(
        default=(), max_length=MAX_ITEMS, description="What forward writes to beside tensors (`self.count`)"
    )
    memory: dict[Name, Size] = Field(
        default={}, description="Leaf -> its memory, as in Result.memory; absent until measured"
    )

    @model_validator(mode="after")
    def _well_formed(self) -> GraphRecord:
        _check(self)
        return self

    @classmethod
    def parse(cls, text: bytes | str) -> GraphRecord:
        """The record that `text` holds; `BadGraph` names the first fault."""
        if len(text) > MAX_BYTES:
            raise BadGraph(f"{len(text)} bytes; at most {MAX_BYTES}")
        try:
            return cls.model_validate_json(text)
        except (ValidationError, RecursionError) as error:
            raise BadGraph(_first_fault(error)) from error

    def dump(self) -> str:
        """The record as JSON, without the fields that hold their defaults; `format` always stands first."""
        fields = self.model_dump_json(exclude_defaults=True)
        return f'{{"format":"{FORMAT}",{fields[1:]}'

    def of_kind(self, kind: str) -> tuple[Leaf, ...]:
        return tuple(leaf for leaf in self.leaves if leaf.kind == kind)


def references(value: Any) -> Iterator[str]:
    """The names that an argument refers to, in order."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "ref":
                yield item
            elif key == "dict":
                yield from references(list(item.values()))
            elif key in ("tuple", "slice"):
                yield from references(item)


def call_references(call: Call) -> list[str]:
    """The values that a call reads, positional arguments first; one that it reads twice stands twice."""
    return [*references(call.args), *references(list(call.kwargs.values()))]


def _check(record: GraphRecord) -> None:
    known: set[str] = set()
    for leaf in record.leaves:
        if leaf.dtype not in DTYPES or len(leaf.stride) != len(leaf.shape):
            raise ValueError(f"leaf {leaf.name}: dtype {leaf.dtype!r}, shape {leaf.shape}")
        _add(known, leaf.name)
    if not known.issuperset(record.placeholders) or len({*record.placeholders}) < len(record.placeholders):
        raise ValueError("placeholders: not among the leaves, or twice")
    _check_argument(record.arguments, known)
    for call in record.calls:
        if call.target not in KNOWN:
            raise ValueError(f"call {call.name}: {call.target!r} is outside the vocabulary")
        if call.layer is not None and call.layer >= len(record.layers):
            raise ValueError(f"call {call.name}: no layer {call.layer}")
        if any(keyword.iskeyword(name) for name in call.kwargs):
            raise ValueError(f"call {call.name}: a keyword of Python names an argument")
        _check_argument([*call.args, *call.kwargs.values()], known)
        _add(known, call.name)
    _check_argument(record.output, known)


def _add(known: set[str], name: str) -> None:
    if name in known:
        raise ValueError(f"two values are called {name}")
    known.add(name)


def _check_argument(value: Any, known: set[str]) -> None:
    left = MAX_ITEMS

    def check(value: Any, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_NESTING:
            raise ValueError("arguments with too many parts, or nested too deeply")
        match value:
            case bool() | float() | None:
                return
            case int() if abs(value) <= MAX_INT:
                return
            case str() if len(value) <= MAX_TEXT:
                return
            case list() | tuple():
                for item in value:
                    check(item, depth + 1)
            case dict() if len(value) == 1:
                ((key, inner),) = value.items()
                for item in _parts(key, inner, known):
                    check(item, depth + 1)
            case _:
                raise ValueError(f"not an argument: {str(value)[:80]}")

    check(value, 0)


def _parts(key: str, inner: Any, known: set[str]) -> list[Any]:
    """What is left to be checked of a tagged value; raises where the tag and the value do not fit."""
    match key, inner:
        case "ref", str() if inner in known:
            return []
        case "tuple", list() | tuple():
            return list(inner)
        case "slice", [_, _, _]:
            return list(inner)
        case "dict", dict() if all(isinstance(k, str) and len(k) <= MAX_TEXT for k in inner):
            return list(inner.values())
        case "complex", [float() | int(), float() | int()]:
            return list(inner)
        case "ellipsis", True:
            return []
        case (("float" | "dtype" | "layout" | "memory_format"), str()) if inner in _CLOSED[key]:
            return []
        case "device", str() if _DEVICE.fullmatch(inner):
            return []
    raise ValueError(f"not an argument: {key!r}: {str(inner)[:80]}")


_CLOSED = {"float": FLOATS, "dtype": DTYPES, "layout": LAYOUTS, "memory_format": MEMORY_FORMATS}


def _first_fault(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"[:300] if where else str(first["msg"])[:300]
