"""Which claims of layers to believe. No torch.

The process that ran the program says which calls a module of torch.nn made. Nothing proves that, so a claim
is believed only where the calls are those that this layer makes; any others count for themselves. A wrong
claim that is believed then says of a call what its function says anyway: F.conv2d is a Conv2d.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from synth_core.graph.eager_names import name_of
from synth_core.graph.record import Call, GraphRecord
from synth_core.operators.catalog import find, realised_operator
from synth_core.operators.operator import KIND_OF_RANK

_F = "torch.nn.functional."
_T = "torch.Tensor."
_BATCHED = frozenset({f"{_T}squeeze", f"{_T}unsqueeze"})
_FIRST_STATE = frozenset({"torch.zeros"}) | _BATCHED
_MASKS = frozenset({"torch.zeros_like", f"{_T}masked_fill_", f"{_T}transpose"})

_CORE: Mapping[str, str] = {"ReLU6": f"{_F}hardtanh", "Softmax2d": f"{_F}softmax"}
"""Layers whose function the catalog knows by another name, or by none."""

_PADDING: Mapping[str, tuple[str, int]] = {
    f"{name}Pad{rank}d": (mode, rank)
    for name, mode in (
        ("Zero", "constant"),
        ("Constant", "constant"),
        ("Reflection", "reflect"),
        ("Replication", "replicate"),
        ("Circular", "circular"),
    )
    for rank in KIND_OF_RANK
}

_BESIDE: Mapping[str, frozenset[str]] = {
    **{f"Conv{rank}d": frozenset({f"{_F}pad"}) for rank in KIND_OF_RANK},
    **{f"InstanceNorm{rank}d": _BATCHED for rank in KIND_OF_RANK},
    **dict.fromkeys(("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"), _FIRST_STATE),
    "MultiheadAttention": _MASKS,
}
"""What a layer may call beside its function, as often as it likes."""

_TRANSFORMERS = frozenset(
    {"TransformerEncoderLayer", "TransformerDecoderLayer", "TransformerEncoder", "TransformerDecoder"}
    | {"Transformer"}
)
_IN_TRANSFORMERS = _MASKS | {f"{_F}dropout"}


def believed(record: GraphRecord) -> dict[int, str]:
    """Layers that are what they claim to be: position in `record.layers` -> operator."""
    calls: dict[int, list[tuple[int, Call]]] = {}
    for place, call in enumerate(record.calls):
        if call.layer is not None:
            calls.setdefault(call.layer, []).append((place, call))
    found = {}
    for number, placed in calls.items():
        operator = realised_operator(record.layers[number].kind)
        in_one_piece = placed[-1][0] - placed[0][0] == len(placed) - 1
        if operator and in_one_piece and _makes(operator, [call for _, call in placed]):
            found[number] = operator
    return found


def _makes(operator: str, calls: Sequence[Call]) -> bool:
    """Whether a layer of this operator makes these calls."""
    steps = [call for call in calls if call.target != "operator.getitem"]
    names = [name_of(call) for call in steps]
    if operator in _TRANSFORMERS:
        return _is_transformer(operator, Counter(names))
    if operator in _PADDING:
        return len(steps) == 1 and _pads(steps[0], *_PADDING[operator])
    core = [name for name in names if _is_core(operator, name)]
    return len(core) == 1 and _BESIDE.get(operator, frozenset()).issuperset({*names} - {*core})


def _is_core(operator: str, name: str) -> bool:
    if operator in _CORE:
        return name == _CORE[operator]
    realised = realised_operator(name)
    return realised is not None and (realised == operator or operator in find(realised).answered_by)


def _pads(call: Call, mode: str, rank: int) -> bool:
    """Whether it is a pad of this mode and of so many axes."""
    if name_of(call) != f"{_F}pad":
        return False
    sizes = [*call.args, None][1] if len(call.args) > 1 else call.kwargs.get("pad")
    widths = sizes.get("tuple") if isinstance(sizes, dict) else sizes
    given = call.args[2] if len(call.args) > 2 else call.kwargs.get("mode", "constant")
    return given == mode and isinstance(widths, list | tuple) and len(widths) == 2 * rank


def _is_transformer(operator: str, counts: Counter[str]) -> bool:
    """Whether the counts are those of so many encoder and decoder layers and norms behind them.

    An encoder layer holds one attention, two Linears, two norms and two sums; a decoder layer one more of
    each but the Linears. That gives the numbers of both.
    """
    attentions = counts.pop(f"{_F}multi_head_attention_forward", 0)
    linears = counts.pop(f"{_F}linear", 0)
    norms = counts.pop(f"{_F}layer_norm", 0)
    sums = counts.pop(f"{_T}add", 0)
    activations = sum(counts.pop(name) for name in list(counts) if _is_activation(name))
    blocks = linears // 2
    decoders = attentions - blocks
    encoders = blocks - decoders
    spare = norms - 2 * encoders - 3 * decoders
    if blocks < 1 or linears % 2 or min(encoders, decoders) < 0 or activations != blocks:
        return False
    if sums != 2 * encoders + 3 * decoders or not _IN_TRANSFORMERS.issuperset(counts):
        return False
    match operator:
        case "TransformerEncoderLayer":
            return (encoders, decoders, spare) == (1, 0, 0)
        case "TransformerDecoderLayer":
            return (encoders, decoders, spare) == (0, 1, 0)
        case "TransformerEncoder":
            return decoders == 0 and spare in (0, 1)
        case "TransformerDecoder":
            return encoders == 0 and spare in (0, 1)
    return spare in (0, 1, 2)


def _is_activation(name: str) -> bool:
    operator = realised_operator(name)
    return operator is not None and find(operator).section == "activation"
