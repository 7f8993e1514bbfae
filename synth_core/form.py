"""Programs as a form to fill in: a weak model chooses the options of layers, and we write the code.

Servers with constrained decoding (llama.cpp, vLLM, OpenAI, Gemini) answer only with JSON that
`answer_schema` allows. For llama.cpp's plain completions, a grammar does the same. `write_program` turns the
JSON into source. Every layer keeps the shape of its input, `[batch, channels, size, size]`, so any order and
any options fit.

The prompt template `layers` uses this form. The strategy `small-model` draws only operators with a row here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from synth_core.program.naming import program_name

TEMPLATE = "layers"


class BadAnswer(ValueError):
    """The answer does not follow the schema. The message says where."""


@dataclass(frozen=True)
class Layer:
    """How one operator is written.

    module: source of its constructor, with `{option}` for each option.
    options: name -> allowed values.
    """

    module: str
    options: dict[str, list[Any]] = field(default_factory=dict)


_KERNEL = {"kernel_size": [3, 1, 5]}
_SIZES: dict[str, list[Any]] = {"batch": [4, 2, 8], "channels": [16, 8, 32], "size": [12, 8, 16]}

LAYERS: dict[str, Layer] = {
    "Linear": Layer("nn.Linear(size, size, bias={bias})", {"bias": [True, False]}),
    "Conv2d": Layer(
        "nn.Conv2d(channels, channels, {kernel_size}, padding={kernel_size} // 2, groups={groups})",
        {**_KERNEL, "groups": [1, 2, 4]},
    ),
    "ConvTranspose2d": Layer(
        "nn.ConvTranspose2d(channels, channels, {kernel_size}, padding={kernel_size} // 2)",
        _KERNEL,
    ),
    "BatchNorm2d": Layer("nn.BatchNorm2d(channels)"),
    "GroupNorm": Layer("nn.GroupNorm({groups}, channels)", {"groups": [4, 2, 8]}),
    "InstanceNorm2d": Layer("nn.InstanceNorm2d(channels, affine=True)"),
    "LayerNorm": Layer("nn.LayerNorm(size)"),
    "RMSNorm": Layer("nn.RMSNorm(size)"),
    "LocalResponseNorm": Layer("nn.LocalResponseNorm({window})", {"window": [3, 5]}),
    "AvgPool2d": Layer("nn.AvgPool2d(3, stride=1, padding=1)"),
    "MaxPool2d": Layer("nn.MaxPool2d(3, stride=1, padding=1)"),
    "ELU": Layer("nn.ELU(alpha={alpha})", {"alpha": [1.0, 0.5, 1.5]}),
    "CELU": Layer("nn.CELU(alpha={alpha})", {"alpha": [1.0, 0.5, 1.5]}),
    "LeakyReLU": Layer("nn.LeakyReLU({slope})", {"slope": [0.1, 0.01, 0.2]}),
    "PReLU": Layer("nn.PReLU(channels)"),
    "Softmax": Layer("nn.Softmax(dim={dim})", {"dim": [1, 3]}),
    "LogSoftmax": Layer("nn.LogSoftmax(dim={dim})", {"dim": [1, 3]}),
    **{
        name: Layer(f"nn.{name}()")
        for name in (
            *("ReLU", "GELU", "SiLU", "Mish", "SELU", "Tanh", "Sigmoid", "Softplus", "Softsign"),
            *("Hardswish", "Hardsigmoid", "LogSigmoid", "Tanhshrink", "Softmax2d"),
        )
    },
}


def answer_schema(operators: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of an answer for these operators. It uses only features that all servers support.

    Raises `BadAnswer` for an operator without a row in `LAYERS`.
    """
    properties = {name: {"enum": values} for name, values in _SIZES.items()}
    for step, name in _steps(operators):
        options = {key: {"enum": values} for key, values in _layer(name).options.items()}
        properties[step] = _object({**options, "skip": {"type": "boolean"}})
    return _object(properties)


def answer_form(operators: Sequence[str], seed: int) -> str:
    """The same schema as one line for the prompt: an object with the allowed values, separated by bars.

    A weak model tends to choose the first value, so the values are shuffled with `seed`.
    Raises `BadAnswer` for an operator without a row in `LAYERS`.
    """
    shuffle = random.Random(seed).sample

    def write(schema: dict[str, Any]) -> str:
        if "properties" in schema:
            return (
                "{" + ", ".join(f'"{key}": {write(part)}' for key, part in schema["properties"].items()) + "}"
            )
        values = schema.get("enum", [True, False])
        return "|".join(json.dumps(value) for value in shuffle(values, len(values)))

    return write(answer_schema(operators))


def answer_grammar(schema: dict[str, Any]) -> str:
    """Turn a schema from `answer_schema` into a llama.cpp grammar (GBNF) with fixed key order and layout."""

    def write(part: dict[str, Any]) -> str:
        if "properties" in part:
            pairs = [f"{_literal(key, ': ')} {write(value)}" for key, value in part["properties"].items()]
            between = ' ", " '
            return f'"{{" {between.join(pairs)} "}}"'
        return f"({' | '.join(_literal(value) for value in part.get('enum', [True, False]))})"

    return f"root ::= {write(schema)}"


def write_program(operators: Sequence[str], answer: str) -> str:
    """Write the program that an answer describes. Raises `BadAnswer` if it does not follow the schema."""
    chosen = _parse(answer)
    sizes = {name: _choice(chosen, name, values) for name, values in _SIZES.items()}
    modules, calls = [], []
    for number, (step, name) in enumerate(_steps(operators), 1):
        choices = chosen.get(step)
        if not isinstance(choices, dict):
            raise BadAnswer(f"{step} is missing")
        layer = _layer(name)
        settings = {key: _choice(choices, key, values) for key, values in layer.options.items()}
        attribute = f"{name.lower()}_{number}"
        modules.append(f"self.{attribute} = {layer.module.format(**settings)}")
        call = f"self.{attribute}(x)"
        calls.append(f"x = x + {call}" if choices.get("skip") is True else f"x = {call}")
    return _PROGRAM.format(
        name=program_name(operators),
        modules="\n        ".join(modules),
        calls="\n        ".join(calls),
        **sizes,
    )


def _steps(operators: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"step_{number}_{name}", name) for number, name in enumerate(operators, 1)]


def _layer(name: str) -> Layer:
    if name not in LAYERS:
        raise BadAnswer(f"the template {TEMPLATE!r} has no form for {name}; use --strategy small-model")
    return LAYERS[name]


def _literal(value: Any, after: str = "") -> str:
    """A value's JSON as a string literal of the grammar. GBNF escapes strings as JSON does."""
    return json.dumps(json.dumps(value) + after)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _parse(answer: str) -> dict[str, Any]:
    """The JSON object in an answer. Without constrained decoding, text or a fence may surround it."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        chosen = json.loads(answer[start : end + 1])
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"no JSON object: {error}") from None
    if not isinstance(chosen, dict):
        raise BadAnswer("the JSON is not an object")
    return chosen


def _choice(chosen: dict[str, Any], name: str, allowed: list[Any]) -> Any:
    value = chosen.get(name)
    if value not in allowed:
        raise BadAnswer(f"{name} is {value!r}, not one of {allowed}")
    return value


_PROGRAM = """import torch
import torch.nn as nn


class {name}(nn.Module):
    def __init__(self, channels, size):
        super().__init__()
        {modules}

    def forward(self, x):
        {calls}
        return x


batch = {batch}
channels = {channels}
size = {size}


def get_inputs():
    return [torch.randn(batch, channels, size, size)]


def get_init_inputs():
    return [[channels, size], {{}}]
"""
