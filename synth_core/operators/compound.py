"""Rows of the compound group: lookups, attention, recurrence, transformers."""

from __future__ import annotations

from synth_core.operators.operator import TOKENS, Group, Kind, Operator, section

_lookup = section(Group.COMPOUND, "lookup", TOKENS)
_attention = section(Group.COMPOUND, "attention", (Kind.SEQUENCE,))
_recurrence = section(Group.COMPOUND, "recurrence", (Kind.SEQUENCE,))
_transformer = section(Group.COMPOUND, "transformer", (Kind.SEQUENCE,))

COMPOUND: tuple[Operator, ...] = (
    _lookup("Embedding", "F.embedding"),
    _lookup("EmbeddingBag", "F.embedding_bag torch.embedding_bag", kinds=(Kind.VECTOR,)),
    _attention("MultiheadAttention", "F.multi_head_attention_forward", aliases=("MultiHeadAttention",)),
    _recurrence("RNN", "torch.rnn_tanh torch.rnn_relu"),
    _recurrence("LSTM", "torch.lstm"),
    _recurrence("GRU", "torch.gru"),
    _recurrence("RNNCell", "torch.rnn_tanh_cell torch.rnn_relu_cell", kinds=TOKENS),
    _recurrence("LSTMCell", "torch.lstm_cell", kinds=TOKENS),
    _recurrence("GRUCell", "torch.gru_cell", kinds=TOKENS),
    _transformer("TransformerEncoderLayer"),
    _transformer("TransformerDecoderLayer"),
    _transformer("TransformerEncoder"),
    _transformer("TransformerDecoder"),
    _transformer("Transformer"),
)
