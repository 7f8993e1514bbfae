"""Rows of the compound group: lookups, attention, recurrence, transformers."""

from __future__ import annotations

from synth_core.operators.operator import TOKENS, Group, Kind, Operator, spelled

_STEPS = (Kind.SEQUENCE,)


def _row(name: str, functions: str = "", kinds: tuple[Kind, ...] = _STEPS, **more: object) -> Operator:
    return Operator(
        name=name,
        group=Group.COMPOUND,
        torch_name=f"torch.nn.{name}",
        kinds=kinds,
        realised_by=spelled(functions),
        **more,  # type: ignore[arg-type]
    )


COMPOUND: tuple[Operator, ...] = (
    _row("Embedding", "F.embedding", TOKENS),
    _row("EmbeddingBag", "F.embedding_bag torch.embedding_bag", TOKENS),
    _row("MultiheadAttention", "F.multi_head_attention_forward", aliases=("MultiHeadAttention",)),
    _row("RNN", "torch.rnn_tanh torch.rnn_relu"),
    _row("LSTM", "torch.lstm"),
    _row("GRU", "torch.gru"),
    _row("RNNCell", "torch.rnn_tanh_cell torch.rnn_relu_cell", TOKENS),
    _row("LSTMCell", "torch.lstm_cell", TOKENS),
    _row("GRUCell", "torch.gru_cell", TOKENS),
    _row("TransformerEncoderLayer"),
    _row("TransformerDecoderLayer"),
    _row("TransformerEncoder"),
    _row("TransformerDecoder"),
    _row("Transformer"),
)
