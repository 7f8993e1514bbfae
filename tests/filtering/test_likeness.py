"""What counts as alike: normal forms, operators in a text, graph hashes, sketches, plants."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import synth_core
from synth_core.errors import UsageError
from synth_core.filtering.contamination import reference_of, scan_files
from synth_core.filtering.fingerprints import Fingerprints, graph_hash
from synth_core.filtering.normal_form import bare_form, plain_form
from synth_core.filtering.reference import Problem, Reference, kernelbench
from synth_core.filtering.sketch import NEAR, similarity, sketch
from synth_core.filtering.static_operators import static_operators
from synth_core.records import Graph, Node

# Written for this test: like a benchmark's problem in form, and no problem of any benchmark.
PROBLEM = '''
import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """Convolves, squashes twice, normalises, folds the ends together."""

    def __init__(self, in_channels, out_channels, kernel_size):
        super(Model, self).__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.norm = nn.GroupNorm(4, out_channels)
        self.shift = nn.Parameter(torch.randn(out_channels, 1, 1))

    def forward(self, x):
        x = self.conv(x)
        x = F.softsign(x)
        x = torch.tanh(x)
        x = self.norm(x)
        y = x * torch.sigmoid(x)
        return y - self.shift  # the end


batch_size = 128


def get_inputs():
    return [torch.rand(batch_size, 3, 64, 64)]


def get_init_inputs():
    return [3, 16, 3]
'''
OPERATORS = ("Conv2d", "Softsign", "Tanh", "GroupNorm", "Sigmoid", "Multiply", "Subtract")


def _swapped(source: str, one: str, other: str) -> str:
    lines = source.split("\n")
    i, j = (next(k for k, line in enumerate(lines) if part in line) for part in (one, other))
    lines[i], lines[j] = lines[j], lines[i]
    return "\n".join(lines)


def _renamed(source: str) -> str:
    for old, new in {"Model": "Net", "conv": "proj", "shift": "delta", " y": " gated", "norm": "gn"}.items():
        source = source.replace(f"self.{old}", f"self.{new}").replace(f"{old} ", f"{new} ")
    return (
        source.replace("class Model(", "class Net(")
        .replace("super(Model", "super(Net")
        .replace("return y", "return gated")
    )


def _replaced(*changes: tuple[str, str]) -> Callable[[str], str]:
    def change(source: str) -> str:
        for old, new in changes:
            assert old in source
            source = source.replace(old, new)
        return source

    return change


SOFTSIGN, TANH, NORM = "x = F.softsign(x)", "x = torch.tanh(x)", "x = self.norm(x)"
# What was done to the problem, and the tier that should see through it.
PLANTS: dict[str, tuple[Callable[[str], str], str]] = {
    "verbatim": (_replaced(), "text"),
    "recommented": (_replaced(("# the end", ""), ("Convolves", "Maps")), "text"),
    "resized": (_replaced(("128", "4"), ("[3, 16, 3]", "[[8, 32], {'kernel_size': 5}]")), "form"),
    "renamed": (_renamed, "form"),
    "reordered init": (lambda source: _swapped(source, "nn.Conv2d", "nn.Parameter"), "form"),
    "respelled": (_replaced((TANH, "x = x.tanh()"), (SOFTSIGN, "x = nn.Softsign()(x)")), "operators"),
    "nested": (_replaced((SOFTSIGN, ""), (TANH, "x = torch.tanh(F.softsign(x))")), "operators"),
    "padded out": (_replaced((NORM, f"x = x.contiguous()\n        {NORM}\n        x = x * 1.0")), "near"),
}


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of([Problem.of("planted", PROBLEM)])


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_contaminant_is_caught_by_its_tier(reference: Reference, name: str) -> None:
    change, tier = PLANTS[name]
    planted = change(PROBLEM)
    assert planted != PROBLEM or name == "verbatim"
    match = reference.match(Fingerprints.of(planted))
    assert match is not None
    assert (match.problem, match.tier) == ("planted", tier)


def test_another_order_or_another_operator_is_no_contaminant(reference: Reference) -> None:
    for old, new in (
        ("torch.tanh", "torch.exp"),
        ("F.softsign", "F.mish"),
        ("nn.GroupNorm(4,", "nn.LocalResponseNorm(2) #"),
    ):
        assert reference.match(Fingerprints.of(PROBLEM.replace(old, new))) is None


def test_kernelbench_is_all_there_and_holds_no_text() -> None:
    known = kernelbench()
    assert len(set(known.text.values())) > 260
    assert known.holds(["Conv2d", "Mish", "Mish"]) == "level2/4_Conv2d_Mish_Mish"
    assert not known.holds([])
    assert known.match(Fingerprints()) is None


def test_every_problem_named_by_operators_is_known_by_them() -> None:
    named = {problem for problem in kernelbench().operators.values() if problem.startswith("level2/")}
    # Two of the hundred share another's operators: 39 repeats 33.
    assert len(named) >= 99


def test_the_scan_says_what_is_like_what(tmp_path: Path) -> None:
    (tmp_path / "held-out").mkdir()
    (tmp_path / "held-out" / "secret.py").write_text(PROBLEM)
    (tmp_path / "mine" / ".synth").mkdir(parents=True)
    (tmp_path / "mine" / "a.py").write_text(PLANTS["renamed"][0](PROBLEM))
    (tmp_path / "mine" / "b.py").write_text("def broken(")
    (tmp_path / "mine" / ".synth" / "hidden.py").write_text(PROBLEM)
    one, two = scan_files([tmp_path / "mine"], reference_of([tmp_path / "held-out"]))
    assert (one.contaminated, one.tier, one.reference, one.score) == (True, "form", "secret", 1.0)
    assert (two.contaminated, two.tier, two.reference, two.score) == (False, "", "", 0.0)
    with pytest.raises(UsageError, match="absent"):
        list(scan_files([tmp_path / "absent"]))


def test_one_program_is_scanned_by_its_path_or_its_text(tmp_path: Path) -> None:
    text = "import torch.nn as nn\nclass M(nn.Module):\n"
    text += "    def __init__(self):\n        self.conv = nn.Conv2d(3, 8, 3)\n"
    text += "    def forward(self, x):\n        x = torch.nn.functional.mish(self.conv(x))\n"
    text += "        return torch.nn.functional.mish(x)\n"
    path = tmp_path / "a.py"
    path.write_text(text)
    for program in (text, path, str(path)):
        found = synth_core.scan(program)
        assert (found.contaminated, found.tier) == (True, "operators")
        assert found.reference == "level2/4_Conv2d_Mish_Mish"
        assert found.path == ("" if program == text else str(path))
    assert not synth_core.scan(text.replace("mish", "tanh")).contaminated
    with pytest.raises(UsageError, match="not a file"):
        synth_core.scan(tmp_path / "absent.py")


def test_operators_are_read_off_the_text_in_the_order_they_happen() -> None:
    assert static_operators(PROBLEM) == OPERATORS


@pytest.mark.parametrize(
    "body",
    [
        "for layer in self.layers:\n            x = layer(x)\n        return x",
        "return self.unknown(x)",
        "if x.sum() > 0:\n            x = torch.relu(x)\n        return x",
    ],
)
def test_a_text_that_hides_operators_tells_none(body: str) -> None:
    text = f"class M(nn.Module):\n    def forward(self, x):\n        {body}\n"
    assert static_operators(text) == ()


def test_a_sequential_counts_for_its_layers_and_sizes_for_nothing() -> None:
    text = """
class M(nn.Module):
    def __init__(self):
        self.net = nn.Sequential(nn.Linear(2 * 4, 8), nn.GELU(), nn.Linear(8, 8))

    def forward(self, x):
        return self.net(x.view(2 * 4, -1)) + x
"""
    assert static_operators(text) == ("Linear", "GELU", "Linear", "Add")


def test_forms_leave_out_what_they_say() -> None:
    assert plain_form("x = 1  # one\n\n\ny=2") == "x = 1\ny = 2"
    bare = bare_form(PROBLEM)
    assert "conv" not in bare.replace("Conv2d", "")
    assert "3" not in bare.replace("v3", "").replace("Conv2d", "")
    assert bare_form("x = 1") == ""


@pytest.mark.parametrize(
    "text", ["", "\0", "def (", "(" * 5000, "class A: pass", "é = '\ud800'", "x = " + "1+" * 20000 + "1"]
)
def test_fingerprints_never_raise(text: str) -> None:
    assert Fingerprints.of(text).graph == ""


def _node(name: str, target: str, *inputs: str, operator: str = "", arguments: str = "") -> Node:
    return Node(name=name, kind="call", target=target, inputs=inputs, operator=operator, arguments=arguments)


X, W, OUT = Node(name="x", kind="input"), Node(name="w", kind="parameter"), "out"


def _graph(*calls: Node, out: str) -> Graph:
    nodes = (X, W, *calls, Node(name=OUT, kind="output", inputs=(out,)))
    return Graph(nodes=nodes, operators=())


def test_graphs_are_alike_whatever_their_spelling_sizes_and_identities() -> None:
    one = _graph(
        _node("a", "torch.nn.functional.relu", "x", arguments='[["$0"],{"inplace":false}]'),
        _node("b", "torch.add", "a", "w"),
        out="b",
    )
    other = _graph(
        _node("d", "torch.nn.functional.dropout", "x", operator="Dropout"),
        _node("p", "torch.Tensor.relu", "d"),
        _node("unused", "torch.tanh", "p"),
        _node("q", "torch.Tensor.add", "w", "p"),
        out="q",
    )
    assert graph_hash(one) == graph_hash(other)


def test_graphs_that_compute_otherwise_differ() -> None:
    relu, tanh = _node("a", "torch.relu", "x"), _node("a", "torch.tanh", "x")
    different = [
        _graph(relu, _node("b", "torch.sub", "a", "x"), out="b"),
        _graph(relu, _node("b", "torch.sub", "x", "a"), out="b"),
        _graph(tanh, _node("b", "torch.sub", "a", "x"), out="b"),
        _graph(relu, _node("b", "torch.sub", "a", "w"), out="b"),
        # One value used twice is not two values made alike.
        _graph(relu, _node("b", "torch.mul", "a", "a"), out="b"),
        _graph(relu, _node("c", "torch.relu", "x"), _node("b", "torch.mul", "a", "c"), out="b"),
    ]
    hashes = [graph_hash(graph) for graph in different]
    assert len(set(hashes)) == len(hashes)


@given(st.integers(0, 2**32))
def test_the_order_of_independent_steps_and_the_names_do_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    calls: list[Node] = []
    for i in range(rng.randint(1, 9)):
        earlier = ["x", "w", *(node.name for node in calls)]
        inputs = rng.choices(earlier, k=rng.randint(1, 2))
        target = (
            rng.choice(["relu", "tanh", "exp"]) if len(inputs) == 1 else rng.choice(["sub", "mul", "matmul"])
        )
        calls.append(_node(f"n{i}", f"torch.{target}", *inputs))
    last = calls[-1].name
    waiting, placed, order = list(calls), {"x", "w"}, []
    while waiting:
        ready = [node for node in waiting if placed.issuperset(node.inputs)]
        chosen = rng.choice(ready)
        waiting.remove(chosen)
        placed.add(chosen.name)
        order.append(chosen)
    fresh = {name: f"v{i}" for i, name in enumerate(["x", "w", *(node.name for node in order)])}
    renamed = [
        node.model_copy(update={"name": fresh[node.name], "inputs": tuple(fresh[i] for i in node.inputs)})
        for node in order
    ]
    leaves = tuple(leaf.model_copy(update={"name": fresh[leaf.name]}) for leaf in (X, W))
    again = Graph(
        nodes=(*leaves, *renamed, Node(name="end", kind="output", inputs=(fresh[last],))), operators=()
    )
    assert graph_hash(_graph(*calls, out=last)) == graph_hash(again)


def test_a_sketch_estimates_how_much_two_texts_share() -> None:
    words = [f"w{i:03d}" for i in range(300)]
    text = " ".join(words)
    for kept in (0.95, 0.8, 0.5):
        cut = " ".join(words[: int(300 * kept)])
        assert similarity(sketch(text), sketch(cut)) == pytest.approx(kept, abs=0.13)  # three standard errors
    assert similarity(sketch(text), sketch("something else altogether")) < 0.1
    assert sketch("abc") == b""
    assert similarity(b"", sketch(text)) == 0.0


def test_a_sketch_is_the_same_on_every_machine() -> None:
    assert sketch("def forward(self, x): return torch.relu(x)")[:8].hex() == "ee1d1a57f047a93d"


def test_unrelated_programs_are_far_from_near() -> None:
    bodies = [
        "torch.relu(self.a(x))",
        "self.a(x).mean(dim=1)",
        "torch.cat([x, self.a(x)], dim=1)",
        "x @ self.a(x).transpose(1, 2)",
    ]
    layers = ["nn.Linear(8, 8)", "nn.LSTM(8, 8)", "nn.Conv1d(8, 8, 3)", "nn.LayerNorm(8)"]
    texts = [
        f"class M(nn.Module):\n    def __init__(self):\n        self.a = {layer}\n\n"
        f"    def forward(self, x):\n        return {body}\n"
        for body, layer in zip(bodies, layers, strict=True)
    ]
    for one, other in itertools.combinations(texts, 2):
        assert similarity(sketch(bare_form(one)), sketch(bare_form(other))) < NEAR
