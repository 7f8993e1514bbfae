"""Every shape of program is either held by the record and gives the same bits, or refused by a named kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph_modules import SEQUENCE, X, captured, eager, measure, module, rebuilt
from torch import nn

from synth_core.graph.capture import capture
from synth_core.graph.draw import fresh
from synth_core.graph.encode import KINDS, NotCapturable
from synth_core.graph.nodes import written_leaves
from synth_core.graph.record import GraphRecord

MASK = X > 0
INDEX = torch.tensor([[0, 2], [1, 3]])


HELD: dict[str, tuple[Any, ...]] = {
    # name: (forward, init, *inputs)
    "arithmetic": ("return 2 - x * 3 / (x.abs() + 1) + x ** 2 - 2 ** x, x // 2, x % 2, -x", ""),
    "comparisons": ("return ((x > 0) & (x <= 0.5)) | ~(x == 0), 0 < x", ""),
    "slices and None": ("return x[1:3, ::2], x[..., None, 0], x[:, None]", ""),
    "a tensor as index": ("return x[torch.tensor([2, 0])], x[i]", "", X, INDEX),
    "lists of tensors": ("return torch.cat([x, x[:, :2]], dim=1), torch.stack((x, x * 2))", ""),
    "tuples that calls return": ("a, b = x.topk(2, 1)\nc = x.chunk(2)\nreturn a, b, torch.cat(c[::-1])", ""),
    "struct sequences": ("return x.max(1).values, torch.sort(x, 0)[1], x.min(0)[0]", ""),
    "attributes": ("return x.T.mT @ x.T, x.real + 1, (x * 2).mH", ""),
    "factories": ("return torch.arange(6) * x + torch.zeros(6) + torch.full((4, 1), 2.0)", ""),
    "numbers in forward": ("return x + torch.tensor([1.0, 2.0, 3.0]).sum() + torch.as_tensor(0.5)", ""),
    "dtypes": (
        "return x.double(), x.to(torch.bfloat16), x.long(), torch.ones_like(x, dtype=torch.int8)",
        "",
    ),
    "devices": ("return torch.ones(6, device=x.device) * x.to(x.device)", ""),
    "infinity": ("return x.masked_fill(x > 0, float('-inf')).clamp(min=-5.0), x + math.inf", ""),
    "memory formats": ("return x[None, None].contiguous(memory_format=torch.channels_last) * 2", ""),
    "in place": ("y = x * 2\ny += 1\ny[0] = 5.0\ny[:, 1] *= 3\nreturn y.relu_()", ""),
    "an input in place": ("x.mul_(2)\nreturn x + 1", ""),
    "a view in place": ("y = x + 0\ny.view(-1)[3:7].fill_(9.0)\nreturn y", ""),
    "nested outputs": ("return {'a': x + 1, 'b': [x * 2, (x - 1, None, 3)]}", ""),
    "one output twice": ("y = x * 2\nreturn y, y, y + 1", ""),
    "a parameter handed out": ("return x + 1, self.w", "self.w = nn.Parameter(torch.ones(3))"),
    "a tensor attribute handed out": ("return x + 1, self.t[0]", "self.t = [torch.ones(3)]"),
    "an input handed out": ("return x, x * 2", ""),
    "no call at all": ("return x", ""),
    "shared parameters": (
        "return self.a(x) + self.b(x)",
        "self.a = nn.Linear(6, 3)\nself.b = nn.Linear(6, 3)\nself.b.weight = self.a.weight",
    ),
    "attributes that are tensors": (
        "return x * self.t + self.list[1]",
        "self.t = torch.ones(6)\nself.list = [self.t, self.t * 2]",
    ),
    "buffers": ("return x * self.t", "self.register_buffer('t', torch.rand(6))"),
    "a buffer in place": ("self.t.add_(1)\nreturn x * self.t", "self.register_buffer('t', torch.ones(6))"),
    "booleans and integers": (
        "return torch.where(m, x, 0.0), x.gather(1, i[:, :1])",
        "",
        X,
        MASK,
        INDEX,
    ),
    "scalars as inputs": ("return x * k + (n if flag else 0)", "", X, 2.5, 3, True),
    "nothing where a tensor may be": ("return x if mask is None else x * mask, x + 1", "", X, None),
    "inputs in a list": ("return xs[0] + xs[1]['a']", "", [X, {"a": X * 2}]),
    "random numbers": ("return x + torch.rand(6) + torch.randn_like(x) * F.dropout(x, 0.5, True)", ""),
    "batch norm": ("return self.a(x)", "self.a = nn.BatchNorm1d(6)\nself.a.running_mean += 0.5"),
    "identity": ("return self.a(x) + 1", "self.a = nn.Identity()"),
    "recurrence": (
        "y, h = self.a(x)\nz, (h, c) = self.b(y)\nreturn self.c(z)[0]",
        "self.a = nn.GRU(8, 4)\nself.b = nn.LSTM(4, 4)\nself.c = nn.RNN(4, 4)",
        SEQUENCE,
    ),
    "cells in a loop": (
        "h = x.new_zeros(2, 4)\nfor t in range(5):\n    h = self.a(x[:, t], h)\nreturn h",
        "self.a = nn.GRUCell(8, 4)",
        SEQUENCE,
    ),
    "attention": (
        "return self.a(x, x, x)[0], self.a(x, x * 2, x * 3)",
        "self.a = nn.MultiheadAttention(8, 2, batch_first=True)",
        SEQUENCE,
    ),
    "attention with masks": (
        "return self.a(x, x, x, attn_mask=torch.ones(5, 5, dtype=torch.bool).triu(1), need_weights=False)[0]",
        "self.a = nn.MultiheadAttention(8, 2, batch_first=True)",
        SEQUENCE,
    ),
    "scaled dot product": (
        "return F.scaled_dot_product_attention(x, x, x, is_causal=True)",
        "",
        SEQUENCE,
    ),
    "transformers": (
        "return self.b(self.a(x), x)",
        "self.a = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)\n"
        "self.b = nn.TransformerDecoderLayer(8, 2, 16, norm_first=True, batch_first=True)",
        SEQUENCE,
    ),
    "embedding bag": ("return self.a(x)", "self.a = nn.EmbeddingBag(9, 4, mode='mean')", INDEX),
    "fake quantisation": ("return torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)", ""),
    "pooling with indices": (
        "return self.b(*self.a(x[None]))",
        "self.a = nn.MaxPool1d(2, return_indices=True)\nself.b = nn.MaxUnpool1d(2)",
    ),
    "upsampling": ("return F.interpolate(x[None, None], scale_factor=2.0, mode='bilinear')", ""),
    "padding": ("return F.pad(x, (1, 1), value=0.5), F.pad(x[None], (2, 0), mode='reflect')", ""),
    "einsum": ("return torch.einsum('ab,cb->ac', x, x)", ""),
    "gradient switched": (
        "with torch.enable_grad():\n    y = x * 2\nreturn y + 1",
        "",
    ),
    "a function with its own gradient": (
        "return Double.apply(x)",
        "",
    ),
}
ARGUMENTS = {
    "a tensor as index": "x, i",
    "booleans and integers": "x, m, i",
    "scalars as inputs": "x, k, n, flag",
    "nothing where a tensor may be": "x, mask",
    "inputs in a list": "xs",
}
TOP = {
    "a function with its own gradient": (
        "class Double(torch.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, x): return x * 2\n"
        "    @staticmethod\n    def backward(ctx, g): return g * 2"
    )
}


@pytest.mark.parametrize("name", HELD)
def test_a_record_gives_the_bits_of_the_program(name: str) -> None:
    """On the inputs of the capture, and on others that are drawn after it."""
    forward, init, *inputs = HELD[name]
    given = tuple(inputs) or (X,)
    program = module(forward, init, ARGUMENTS.get(name, "x"), TOP.get(name, ""))
    again = module(forward, init, ARGUMENTS.get(name, "x"), TOP.get(name, ""))
    found = capture(program, given)
    wanted, got = eager(again, given), rebuilt(found.record, found.tensors)
    assert [t.dtype for t in got] == [t.dtype for t in wanted]
    assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    if all(isinstance(value, torch.Tensor) for value in given):
        other = fresh(given, seed=11)
        names = [leaf.name for leaf in found.record.of_kind("input")]
        tensors = {**found.tensors, **dict(zip(names, other, strict=True))}
        third = module(forward, init, ARGUMENTS.get(name, "x"), TOP.get(name, ""))
        wanted, got = eager(third, other), rebuilt(found.record, tensors)
        assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))


REFUSED: dict[str, tuple[str, str, str]] = {
    # name: (kind, forward, init)
    "a branch on values": ("graph_break", "return x if x.sum() > 0 else x + 1", ""),
    "a print": ("graph_break", "print('hello')\nreturn x", ""),
    "a seed": ("graph_break", "torch.manual_seed(0)\nreturn x", ""),
    "cond": (
        "higher_order_operator",
        "return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))",
        "",
    ),
    "checkpoint": (
        "higher_order_operator",
        "import torch.utils.checkpoint as c\nreturn c.checkpoint(lambda y: y * 2, x, use_reentrant=False)",
        "",
    ),
    "autocast": ("autocast", "with torch.autocast('cpu'):\n    return x @ x.T", ""),
    "a shape from values": ("data_dependent", "return x[x > 0]", ""),
    "a number from values": ("data_dependent", "return x * x.sum().item()", ""),
    "memory by address": ("target", "return x.as_strided((2, 2), (1, 1))", ""),
    "a sparse tensor": ("layout", "return x + self.w", "self.register_buffer('w', torch.eye(6).to_sparse())"),
    "a subclass": (
        "tensor_subclass",
        "return x * 2",
        "class T(torch.Tensor): pass\nself.register_buffer('w', torch.ones(2).as_subclass(T))",
    ),
    "a view of an input returned": ("output", "return x * 2, x.T", ""),
    "shapes that do not fit": ("dynamo", "return torch.cat([x, x[0]])", ""),
    "an object returned": ("output", "return x * 2, {1, 2}", ""),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_the_record_cannot_hold_is_refused_by_name(name: str) -> None:
    kind, forward, init = REFUSED[name]
    with pytest.raises(NotCapturable) as refusal:
        captured(forward, init)
    assert refusal.value.kind == kind
    assert kind in KINDS


def leaves(record: GraphRecord, kind: str) -> list[str]:
    return [leaf.path for leaf in record.of_kind(kind)]


def test_leaves_are_bound_by_what_they_are() -> None:
    found = captured(
        "return b * self.w + self.t + a * K + self.lin(a)",
        "self.w = nn.Parameter(torch.ones(6))\nself.register_buffer('t', torch.ones(6))\n"
        "self.lin = nn.Linear(6, 6)\nself.spare = nn.Parameter(torch.ones(2))",
        X, X * 2, X * 3,
        args="a, b, unused",
        top="K = torch.full((6,), 7.0)",
    ).record  # fmt: skip
    assert leaves(found, "input") == ["0", "1", "2"]
    assert leaves(found, "parameter") == ["w", "spare", "lin.weight", "lin.bias"]
    assert leaves(found, "buffer") == ["t"]
    assert leaves(found, "constant") == ["G['K']"]
    read = [leaf.path for name in found.placeholders for leaf in found.leaves if leaf.name == name]
    assert sorted(read) == sorted(["0", "1", "w", "t", "G['K']", "lin.weight", "lin.bias"])


def test_shared_parameters_have_one_leaf_with_all_their_paths() -> None:
    record = captured(*HELD["shared parameters"]).record
    assert [(leaf.path, leaf.aliases) for leaf in record.of_kind("parameter")] == [
        ("a.weight", ("b.weight",)),
        ("a.bias", ()),
        ("b.bias", ()),
    ]


def test_equal_inputs_are_two_inputs() -> None:
    record = captured("return x + y", "", X, X, args="x, y").record
    assert record.placeholders == ("input_0", "input_1")


def test_the_program_stays_as_it_was() -> None:
    program = module(
        "self.t.add_(1)\nx.mul_(2)\nreturn x * self.t + torch.rand(6)",
        "self.register_buffer('t', torch.ones(6))",
    )
    given, state = X.clone(), torch.get_rng_state()
    found = capture(program, [given])
    assert torch.equal(given, X)
    assert torch.equal(program.get_buffer("t"), torch.ones(6))
    assert torch.equal(found.tensors["buffer_0"], torch.ones(6))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("forward", "init", "written"),
    [
        ("self.n = self.n + 1\nreturn x + self.n", "self.n = 0", ("self.n",)),
        ("self.h = x * 2\nreturn self.h + 1", "self.h = None", ("self.h",)),
        ("self.seen.append(1)\nreturn x + len(self.seen)", "self.seen = []", ("self.seen",)),
        ("self.a.last = 3\nreturn self.a(x)", "self.a = nn.Linear(6, 2)", ("self.a.last",)),
        ("global COUNT\nCOUNT = COUNT + 1\nreturn x + COUNT", "", ("G['COUNT']",)),
        ("y = [x]\ny.append(x * 2)\nreturn torch.cat(y)", "", ()),
    ],
)
def test_what_forward_writes_is_named(forward: str, init: str, written: tuple[str, ...]) -> None:
    assert captured(forward, init, top="COUNT = 0").record.side_effects == written


def test_leaves_that_a_call_writes_to_are_named() -> None:
    found = captured("self.t.add_(1)\nreturn x * self.t", "self.register_buffer('t', torch.ones(6))")
    assert written_leaves(measure(found)) == ("buffer_0",)
    assert written_leaves(measure(captured("y = x[0]\ny.mul_(2)\nreturn x + 1"))) == ("input_0",)
    assert written_leaves(measure(captured("y = x * 1\ny.mul_(2)\nreturn y"))) == ()


def test_layouts_of_leaves_are_recorded() -> None:
    found = captured(
        "return x * self.w.t()", "self.w = nn.Parameter(torch.ones(4, 6).t())", X.t().contiguous().t()
    )
    assert {leaf.path: leaf.stride for leaf in found.record.leaves} == {"0": (1, 4), "w": (1, 6)}


def test_each_call_of_a_layer_is_one_claim() -> None:
    record = captured("return self.b(self.b(x))", "self.b = nn.Sequential(nn.Linear(6, 6), nn.ReLU())").record
    assert [(layer.path, layer.kind.rpartition(".")[2]) for layer in record.layers] == [
        ("b.0", "Linear"), ("b.1", "ReLU"), ("b.0", "Linear"), ("b.1", "ReLU"),
    ]  # fmt: skip
    assert [call.layer for call in record.calls] == [0, 1, 2, 3]


def test_a_module_that_someone_else_traced_before_is_captured_anew() -> None:
    """Nothing of one capture is left for the next: neither compiled code nor a patched nn.Identity."""
    forward = nn.Identity.forward
    first = captured("return self.a(x) * 2", "self.a = nn.Identity()").record
    assert captured("return self.a(x) * 2", "self.a = nn.Identity()").record == first
    assert nn.Identity.forward is forward
