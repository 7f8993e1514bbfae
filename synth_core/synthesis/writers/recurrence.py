"""Recurrent layers, and their cells in a loop over the steps."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.sizes import WIDTHS
from synth_core.synthesis.writers.dense import width_text

MOST_STEPS = 9  # steps of an unrolled loop: every step runs its own kernels
MOST_STEPS_OF_A_LAYER = 200  # torch.compile unrolls layers too, and longer ones hit the time limit


def layer(d: Draft, x: Value, operator: str) -> Value:
    if x.shape[1] > MOST_STEPS_OF_A_LAYER:
        raise CannotWrite("too many steps to unroll")
    hidden = d.rng.choice(WIDTHS[Kind.SEQUENCE][:3])
    extra = d.rng.choices(("", ", bidirectional=True", ", num_layers=2"), (6, 2, 1))[0]
    text = (
        f"nn.{operator}({width_text(d, x)}, {d.sizes.width(hidden, x.kind, d.env)}, batch_first=True{extra})"
    )
    rnn = d.attribute(operator.lower(), text)
    return d.emit_many(f"{rnn}({x})", (x.kind,), ("outputs",), "{}, _")[0]


def cell(d: Draft, x: Value, operator: str) -> Value:
    hidden = d.rng.choice(WIDTHS[Kind.SEQUENCE][:3])
    width = d.sizes.width(hidden, x.kind, d.env)
    unit = d.attribute("cell", f"nn.{operator}({width_text(d, x)}, {width})")
    lstm = operator == "LSTMCell"
    if x.kind is Kind.VECTOR:
        state = [
            d.input(Kind.VECTOR, hint, width=hidden)
            for hint in (("hidden", "memory") if lstm else ("hidden",))
        ]
        if lstm:
            h, c = d.emit_many(
                f"{unit}({x}, ({state[0]}, {state[1]}))", (x.kind, x.kind), ("h", "c"), "{}, {}"
            )
            d.heads.append(c)
            return h
        return d.emit(f"{unit}({x}, {state[0]})", x.kind, "h")
    if x.shape[1] > MOST_STEPS:
        raise CannotWrite("too many steps to unroll")
    zeros = f"{x}.new_zeros({x}.shape[0], {unit}.hidden_size)"
    names = "state, memory_cell" if lstm else "state"
    start = "\n".join(f"{name} = {zeros}" for name in names.split(", "))
    step = f"{names} = {unit}({x}[:, t], {'(state, memory_cell)' if lstm else 'state'})"
    loop = f"for t in range({x}.shape[1]):\n    {step}\n"
    # Keep all states: the first steps would have almost no effect on the last state alone.
    kind, pool = (Kind.VECTOR, ".mean(dim=1)") if d.bridge_to is Kind.VECTOR else (x.kind, "")
    collect = f"    steps.append(state)\n{{out}} = torch.stack(steps, dim=1){pool}"
    return d.block(f"{start}\nsteps = []\n{loop}{collect}", kind, "h")


WRITERS = {
    **dict.fromkeys(("RNN", "LSTM", "GRU"), layer),
    **dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell"), cell),
}
