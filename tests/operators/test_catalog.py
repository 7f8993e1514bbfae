"""Every row of the catalog, one table-driven test each; what counts as realising and as answering."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch

from synth_core.errors import UsageError
from synth_core.operators import catalog
from synth_core.operators.operator import Group, Kind, Operator
from synth_core.operators.patterns import parse

# The seed system's names, group by group: a program of its folder may ask for any of them.
SEED = {
    Group.CORE: """Linear Bilinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Matmul
        Gemm BMM""",
    Group.COMPOUND: """Embedding EmbeddingBag MultiheadAttention RNN LSTM GRU RNNCell LSTMCell GRUCell
        TransformerEncoderLayer TransformerDecoderLayer TransformerEncoder TransformerDecoder Transformer""",
    Group.SUPPORTING: """ReLU Sigmoid Tanh LeakyReLU GELU SiLU Swish Softmax Mish Hardtanh Hardswish HardSwish
        ELU CELU SELU ReLU6 PReLU RReLU LogSigmoid Softmin Softplus Softsign Softshrink Hardshrink Hardsigmoid
        GLU Tanhshrink Threshold LogSoftmax Softmax2d Add Multiply Subtract Divide Clamp Scale ResidualAdd
        Identity CosineSimilarity PairwiseDistance BiasAdd BatchNorm BatchNorm1d BatchNorm2d BatchNorm3d
        LayerNorm InstanceNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d GroupNorm LocalResponseNorm
        CrossMapLRN2d RMSNorm MaxPool MaxPool1d MaxPool2d MaxPool3d AvgPool AvgPool1d AvgPool2d AvgPool3d
        GlobalAvgPool AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d
        AdaptiveMaxPool2d AdaptiveMaxPool3d FractionalMaxPool2d FractionalMaxPool3d LPPool1d LPPool2d LPPool3d
        MaxUnpool1d MaxUnpool2d MaxUnpool3d Sum Mean Max Min LogSumExp Dropout Dropout1d Dropout2d Dropout3d
        AlphaDropout FeatureAlphaDropout Fold Unfold Flatten Unflatten ChannelShuffle PixelShuffle
        PixelUnshuffle ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d
        ReplicationPad1d ReplicationPad2d ReplicationPad3d CircularPad1d CircularPad2d CircularPad3d
        ConstantPad1d ConstantPad2d ConstantPad3d Upsample UpsamplingNearest2d UpsamplingBilinear2d""",
}


def resolves(dotted: str) -> bool:
    found: object = torch
    for part in dotted.split(".")[1:]:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


@pytest.mark.parametrize("row", catalog.CATALOG, ids=lambda row: row.name)
def test_row(row: Operator) -> None:
    assert row.name.isalnum()
    assert row.name[0].isupper()
    assert row.kinds
    for dotted in (row.torch_name, *row.realised_by):
        assert resolves(dotted), dotted
    for other in (*row.answered_by, *((row.folds_to,) if row.folds_to else ())):
        assert catalog.find(other).name == other
    assert bool(row.patterns) == (row.group is Group.MOTIF)
    for pattern in row.patterns:
        parse(pattern)
    assert catalog.find(row.name) is row
    assert not catalog.missing([row.name], [row.name])
    assert catalog.fingerprint([row.name])


@pytest.mark.parametrize("group", SEED)
def test_every_name_of_the_seed_is_in_its_group(group: Group) -> None:
    for name in SEED[group].split():
        assert catalog.find(name).group is group


def test_names_aliases_and_functions_are_unique() -> None:
    names = Counter(name for row in catalog.CATALOG for name in (row.name, *row.aliases))
    functions = Counter(name for row in catalog.CATALOG for name in row.realised_by)
    assert max(names.values()) == max(functions.values()) == 1


def test_there_are_motifs_and_every_kind_has_operators() -> None:
    assert len(catalog.in_group(Group.MOTIF)) >= 25
    for kind in Kind:
        assert any(row.kinds == (kind,) for row in catalog.CATALOG)


def test_unknown_name_gets_the_close_ones() -> None:
    with pytest.raises(UsageError, match="Conv2d") as error:
        catalog.find("Conv2D")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dotted", "name"),
    [
        ("torch.nn.modules.conv.Conv2d", "Conv2d"),
        ("torch.nn.Conv2d", "Conv2d"),
        ("torch.Tensor.relu_", "ReLU"),
        ("torch.nn.functional.silu", "SiLU"),
        ("torch.Tensor.__radd__", "Add"),
        ("torch.mul", "Multiply"),
        ("torch.nn.functional.max_pool2d", "MaxPool2d"),
        ("torch.Tensor.view", None),
    ],
)
def test_realised_operator(dotted: str, name: str | None) -> None:
    assert catalog.realised_operator(dotted) == name


@pytest.mark.parametrize(
    ("requested", "realised", "missing"),
    [
        (["Swish"], ["SiLU"], []),
        (["ReLU", "ReLU"], ["ReLU"], ["ReLU"]),
        (["BatchNorm"], ["BatchNorm2d"], []),
        (["BatchNorm2d"], ["BatchNorm3d"], ["BatchNorm2d"]),
        (["BatchNorm", "BatchNorm2d"], ["BatchNorm2d", "BatchNorm3d"], []),
        (["ResidualAdd"], ["Add"], ["ResidualAdd"]),
        (["Add"], ["ResidualAdd"], []),
        (["Linear", "SiLU", "Linear", "Multiply"], ["SwiGLU"], []),
        (["SwiGLU", "Linear"], ["SwiGLU"], ["Linear"]),
        (["ScaledDotProductAttention"], ["CausalAttention"], []),
    ],
)
def test_missing(requested: list[str], realised: list[str], missing: list[str]) -> None:
    assert catalog.missing(requested, realised) == missing


def test_fingerprint_folds_names_and_takes_motifs_apart() -> None:
    assert catalog.fingerprint(["Gemm", "Swish"]) == catalog.fingerprint(["Linear", "SiLU"])
    assert catalog.fingerprint(["SwiGLU"]) == ("Linear", "SiLU", "Linear", "Multiply")


def test_the_catalog_imports_no_torch() -> None:
    code = "import sys, synth_core.operators.recognise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
