"""The format: its schema, its bounds, and what is refused when it is read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from graph_modules import SEQUENCE, X, captured, measure

from synth_core.graph import record as format_
from synth_core.graph.record import BadGraph, GraphRecord
from synth_core.graph.vocabulary import TARGETS

SCHEMA = Path(__file__).parents[2] / "docs" / "graph.schema.json"


def test_the_schema_is_the_documented_one() -> None:
    """A change of the format changes this file: give the format another number, and say so in docs/graph.md.

    Written by: python -m synth_core.graph.record > docs/graph.schema.json
    """
    assert GraphRecord.model_json_schema() == json.loads(SCHEMA.read_text(encoding="utf-8"))


def test_the_docs_name_every_field_and_every_kind_of_argument() -> None:
    text = (SCHEMA.parent / "graph.md").read_text(encoding="utf-8")
    schema = GraphRecord.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    fields = {name for model in models for name in model.get("properties", {})}
    tags = {"ref", "tuple", "dict", "slice", "complex", "float", "dtype", "device", "ellipsis"}
    assert [name for name in sorted(fields | tags) if f"`{name}`" not in text] == []
    assert format_.FORMAT in text


def test_a_record_survives_json() -> None:
    found = captured(
        "y, h = self.a(x)\nreturn {'y': y[..., None, 1:3], 'n': (None, True)}, h.double() + math.inf",
        "self.a = nn.GRU(8, 4)",
        SEQUENCE,
    )
    for record in (found.record, measure(found)):
        assert GraphRecord.parse(record.dump()) == record
        assert GraphRecord.parse(record.dump().encode()) == record
        assert json.loads(record.dump())["format"] == "synth-graph/1"


def plain() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(captured("return torch.relu(x) + 1", "", X).record.dump())
    return record


def changed(**fields: Any) -> str:
    return json.dumps({**plain(), **fields})


def call(target: str = "torch.relu", args: Any = ({"ref": "input_0"},), **fields: Any) -> dict[str, Any]:
    return {"name": "a", "target": target, "args": list(args), **fields}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


MALFORMED: dict[str, tuple[str, str]] = {
    "no json": ("{", "EOF"),
    "another format": (changed(format="synth-graph/2"), "synth-graph/1"),
    "a field too many": (changed(extra=1), "extra"),
    "a field too few": ('{"format": "synth-graph/1"}', "required"),
    "outside the vocabulary": (changed(calls=[call("torch.load", ["/etc/passwd"])]), "vocabulary"),
    "a private name": (changed(calls=[call("torch.Tensor.__reduce_ex__")]), "vocabulary"),
    "a value before it is made": (changed(calls=[call(args=[{"ref": "b"}])]), "not an argument"),
    "its own value": (changed(calls=[call(args=[{"ref": "a"}])]), "not an argument"),
    "two values of one name": (changed(calls=[call(), call()]), "two values"),
    "a name that is code": (changed(calls=[{**call(), "name": "a; import os"}]), "pattern"),
    "a keyword as argument": (changed(calls=[call(kwargs={"lambda": 1})]), "keyword"),
    "an argument's name that is code": (changed(calls=[call(kwargs={"a=1,b": 1})]), "pattern"),
    "an unknown tag": (changed(calls=[call(args=[{"eval": "1"}])]), "not an argument"),
    "two tags": (changed(calls=[call(args=[{"ref": "input_0", "dtype": "int8"}])]), "not an argument"),
    "an unknown dtype": (changed(calls=[call(args=[{"dtype": "load"}])]), "not an argument"),
    "an unknown device": (changed(calls=[call(args=[{"device": "cpu; import os"}])]), "not an argument"),
    "an endless integer": (changed(calls=[call(args=[10**30])]), "not an argument"),
    "a long text": (changed(calls=[call(args=["x" * 1000])]), "not an argument"),
    "deep nesting": (changed(calls=[call(args=[nested(20)])]), "nested"),
    "very deep nesting": (changed(calls=[call(args=[nested(300)])]), "recursion"),
    "a list of everything": (changed(calls=[call(args=[[0] * 5000])]), "too many"),
    "a layer that is not there": (changed(calls=[call(layer=3)]), "no layer"),
    "an output of nothing": (changed(output={"ref": "nothing"}), "not an argument"),
    "a placeholder that is no leaf": (changed(placeholders=["x"]), "placeholders"),
    "a placeholder twice": (changed(placeholders=["input_0", "input_0"]), "placeholders"),
    "negative sizes": (changed(leaves=[{**plain()["leaves"][0], "shape": [-1, 6]}]), "greater"),
    "strides of other axes": (changed(leaves=[{**plain()["leaves"][0], "stride": [1]}]), "shape"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused(name: str) -> None:
    text, says = MALFORMED[name]
    with pytest.raises(BadGraph, match=says):
        GraphRecord.parse(text)


def test_a_large_text_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_, "MAX_BYTES", 100)
    with pytest.raises(BadGraph, match="bytes"):
        GraphRecord.parse("[" * 101)


def test_the_vocabulary_holds_nothing_that_reaches_out() -> None:
    """Names that touch files, the process, Python or raw memory stay out, however they are spelled."""
    never = set(
        """
        load save compile jit ops manual_seed seed from_file from_numpy frombuffer from_dlpack to_dlpack
        data_ptr storage untyped_storage set_ resize_ as_strided apply_ map_ map2_ numpy tolist item backward
        share_memory_ set_default_dtype set_default_device set_num_threads get_rng_state fork vmap
        requires_grad_ register_hook pin_memory record_stream module_load nonzero unique masked_select
        """.split()  # noqa: SIM905
    )
    used = {part for target in TARGETS for part in target.removesuffix(".__get__").split(".")}
    assert used & never == set()
    assert (
        not {part for part in used if part.startswith("_")}
        - {"_C", "_nn", "_weight_norm"}
        - {part for part in used if part.startswith("_upsample")}
    )
    assert len(set(TARGETS)) == len(TARGETS)


def test_the_record_needs_no_torch() -> None:
    """Whoever reads records stays small: torch costs seconds and hundreds of megabytes."""
    import subprocess

    code = "import sys, synth_core.graph.nodes, synth_core.graph.record; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
