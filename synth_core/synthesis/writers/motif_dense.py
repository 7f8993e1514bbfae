"""Motifs for features: gates, norms written out, adapters, experts, quantisation, output heads."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.writers.activation import quantile
from synth_core.synthesis.writers.arithmetic import partner
from synth_core.synthesis.writers.dense import gain, new_width, project, weight_of, width_text

GATES = {"SwiGLU": "F.silu", "GeGLU": "F.gelu", "ReGLU": "F.relu", "GatedLinearUnit": "torch.sigmoid"}


def gated(d: Draft, x: Value, operator: str) -> Value:
    """Multiply two projections, one of them after an activation. Often project the result back."""
    inner, act = new_width(d, x), GATES[operator]
    gate = d.emit(f"{act}({project(d, x, inner, 'gate_proj')})", x.kind, "gate")
    hidden = d.emit(f"{gate} * {project(d, x, inner, 'up_proj')}", x.kind, "hidden")
    if d.rng.random() < 0.6:
        return d.emit(project(d, hidden, x, "down_proj"), x.kind, "h")
    return hidden


def highway(d: Draft, x: Value, operator: str) -> Value:
    gate = d.emit(f"torch.sigmoid({project(d, x, x, 'gate')})", x.kind, "gate")
    new = d.emit(f"torch.tanh({project(d, x, x, 'transform')})", x.kind, "candidate")
    return d.emit(f"{gate} * {new} + (1.0 - {gate}) * {x}", x.kind, "h")


def film(d: Draft, x: Value, operator: str) -> Value:
    """Scale and shift every channel by numbers computed from a condition."""
    condition = d.input(Kind.VECTOR, d.choose("condition", "style"))
    index = f"[:, :{', None' * len(x.spatial)}]" if x.spatial else ""
    scale = d.emit(project(d, condition, x, "to_scale"), Kind.VECTOR, "scale")
    shift = d.emit(project(d, condition, x, "to_shift"), Kind.VECTOR, "shift")
    return d.emit(f"{x} * (1.0 + {scale}{index}) + {shift}{index}", x.kind, "h")


def softcap(d: Draft, x: Value, operator: str) -> Value:
    cap = max(quantile(x, 0.8, magnitude=True), 0.05)
    cap = 1.5 if cap == 1.0 else cap  # a cap of 1 would have no effect as a scale
    return d.emit(f"{cap} * torch.tanh({x} / {cap})", x.kind, "h")


def rms_norm(d: Draft, x: Value, operator: str) -> Value:
    weight = d.parameter("weight", f"torch.rand({width_text(d, x)}) + 0.5")
    power = d.choose(f"{x}.pow(2)", f"({x} ** 2)")
    rms = d.emit(f"torch.rsqrt({power}.mean(dim=-1, keepdim=True) + 1e-6)", x.kind, "inv_rms")
    return d.emit(f"{x} * {rms} * {weight}", x.kind, "h")


def layer_norm(d: Draft, x: Value, operator: str) -> Value:
    mean = d.emit(f"{x}.mean(dim=-1, keepdim=True)", x.kind, "mean")
    var = d.emit(f"{x}.var(dim=-1, keepdim=True, unbiased=False)", x.kind, "var")
    return d.emit(f"({x} - {mean}) / torch.sqrt({var} + 1e-5)", x.kind, "h")


def layer_scale(d: Draft, x: Value, operator: str) -> Value:
    """A residual branch, scaled by one learned number per channel."""
    width = width_text(d, x)
    if x.spatial:
        branch = f"{d.attribute('conv', f'nn.Conv2d({width}, {width}, kernel_size=3, padding=1)')}({x})"
        shape = f"{width}, 1, 1"
    else:
        branch, shape = project(d, x, x, "proj"), width
    gamma = d.parameter("gamma", f"0.1 * torch.rand({shape}) + 0.1")
    return d.emit(f"{x} + {gamma} * {d.choose('F.gelu', 'torch.tanh', 'F.silu')}({branch})", x.kind, "h")


def feed_forward(d: Draft, x: Value, operator: str) -> Value:
    norm = d.attribute("norm", f"nn.{d.choose('LayerNorm', 'RMSNorm')}({width_text(d, x)})")
    hidden = d.emit(project(d, x, 2 * x.channels, "fc", read=f"{norm}({x})"), x.kind, "hidden")
    act = d.choose("F.gelu", "F.relu", "F.silu")
    return d.emit(f"{x} + {project(d, hidden, x, 'fc', read=f'{act}({hidden})')}", x.kind, "h")


def low_rank(d: Draft, x: Value, operator: str) -> Value:
    """A dense layer plus a low-rank branch."""
    rank, out = d.rng.choice((2, 4, 8)), new_width(d, x)
    width, wide = width_text(d, x), d.sizes.width(out, x.kind, d.env)
    down = d.attribute("lora_down", f"nn.Linear({width}, {rank}, bias=False)")
    up = d.attribute("lora_up", f"nn.Linear({rank}, {wide}, bias=False)")
    scale = d.number("lora_scale", d.rng.choice((0.5, 2.0, 4.0)))
    return d.emit(f"{project(d, x, out, 'base')} + {scale} * {up}({down}({x}))", x.kind, "h")


def experts(d: Draft, x: Value, operator: str) -> Value:
    """Run every expert. A softmax over a router's scores gives the weights of their outputs."""
    count, out = d.rng.choice((2, 3, 4)), new_width(d, x)
    router = d.attribute("router", f"nn.Linear({width_text(d, x)}, {count})")
    weights = d.emit(f"torch.softmax({router}({x}), dim=-1)", x.kind, "weights")
    calls = ", ".join(project(d, x, out, "expert") for _ in range(count))
    stacked = d.emit(f"torch.stack([{calls}], dim=-2)", x.kind, "expert_out")
    return d.emit(f"({weights}.unsqueeze(-1) * {stacked}).sum(dim=-2)", x.kind, "h")


def epilogue(d: Draft, x: Value, operator: str) -> Value:
    """A matrix product with bias, scale and activation, which a GEMM kernel fuses as its epilogue."""
    weight, out = weight_of(d, x)
    bias = d.parameter("bias", f"torch.randn({out})")
    scale = d.number("scale", d.rng.choice((0.5, 1.5, 2.0)))
    act = d.choose("F.relu", "F.gelu", "F.silu", "torch.tanh")
    return d.emit(f"{act}((torch.matmul({x}, {weight}) + {bias}) * {scale})", x.kind, "h")


def contraction(d: Draft, x: Value, operator: str) -> Value:
    size, out = width_text(d, x), d.sizes.width(new_width(d, x), x.kind, d.env)
    if x.kind is Kind.SEQUENCE and d.rng.random() < 0.5:
        y = partner(d, x)
        scale = d.choose("/ {}.shape[-1]", "* {}.shape[-1] ** -0.5", "/ math.sqrt({}.size(-1))").format(x)
        return d.emit(f'torch.einsum("bid,bjd->bij", {x}, {y}) {scale}', x.kind, "scores")
    weight = d.parameter("weight", f"torch.randn({size}, {out}){gain(d, size)}")
    pattern = "btd,de->bte" if x.kind is Kind.SEQUENCE else "bd,de->be"
    return d.emit(f'torch.einsum("{pattern}", {x}, {weight})', x.kind, "h")


def factorized(d: Draft, x: Value, operator: str) -> Value:
    y, out = partner(d, x), new_width(d, x)
    left = f"torch.tanh({project(d, x, out, 'left')})"
    return d.emit(f"{left} * torch.tanh({project(d, y, out, 'right')})", x.kind, "h")


def stable_softmax(d: Draft, x: Value, operator: str) -> Value:
    """A softmax written out, with the largest value subtracted first."""
    axis = x.axis
    if x.channels < 3:
        raise CannotWrite("a softmax over so few elements says little")
    exp = d.emit(f"torch.exp({x} - {x}.amax(dim={axis}, keepdim=True))", x.kind, "exp")
    return d.emit(f"{exp} / {exp}.sum(dim={axis}, keepdim=True)", x.kind, "weights")


def quantize(d: Draft, x: Value, operator: str) -> Value:
    """Round to integer multiples, at most 6, of a seventh of each row's largest magnitude."""
    scale = d.emit(f"{x}.abs().amax(dim=-1, keepdim=True) / 7.0", x.kind, "scale")
    return d.emit(f"torch.clamp(torch.round({x} / {scale}), -6, 6) * {scale}", x.kind, "h")


def cosine(d: Draft, x: Value, operator: str) -> Value:
    classes = d.rng.choice((10, 12, 20))
    count = d.sizes.constant("num_classes", d.sizes.constants.get("num_classes") or classes, d.env)
    prototypes = d.parameter("prototypes", f"torch.randn({count}, {width_text(d, x)})")
    scale = d.number("scale", d.rng.choice((4.0, 8.0, 10.0)))
    text = f"F.linear(F.normalize({x}, dim=-1), F.normalize({prototypes}, dim=-1))"
    return d.emit(f"{text} * {scale}", x.kind, "logits")


def prototypes(d: Draft, x: Value, operator: str) -> Value:
    centres = d.parameter("prototypes", f"torch.randn({d.rng.choice((8, 10, 12))}, {width_text(d, x)})")
    if x.kind is Kind.SEQUENCE:
        return d.emit(f"torch.cdist({x}, {centres}.expand({x}.shape[0], -1, -1))", x.kind, "distances")
    return d.emit(f"torch.cdist({x}, {centres})", x.kind, "distances")


def cross_entropy(d: Draft, x: Value, operator: str) -> Value:
    """The loss of every row against integer labels. It is returned in addition to the logits."""
    batch, count = extents.texts(d, x)
    labels = d.input_from(
        f"torch.randint(0, {count}, ({batch},))", (batch,), Kind.VECTOR, d.choose("labels", "target")
    )
    if len(d.heads) >= 2:
        raise CannotWrite("the program returns enough values already")
    loss = d.emit(f'F.cross_entropy({x}, {labels}, reduction="none")', Kind.VECTOR, "loss")
    d.heads.append(loss)
    return x


WRITERS = {
    **dict.fromkeys(GATES, gated),
    "HighwayGate": highway,
    "FiLM": film,
    "LogitSoftcap": softcap,
    "ManualRMSNorm": rms_norm,
    "ManualLayerNorm": layer_norm,
    "LayerScale": layer_scale,
    "PreNormFeedForward": feed_forward,
    "LowRankAdapter": low_rank,
    "MixtureOfExperts": experts,
    "GemmEpilogue": epilogue,
    "EinsumContraction": contraction,
    "FactorizedBilinear": factorized,
    "StableSoftmax": stable_softmax,
    "FakeQuantize": quantize,
    "CosineClassifier": cosine,
    "PrototypeDistance": prototypes,
    "CrossEntropyHead": cross_entropy,
}
