"""A program that is being written: every line runs on real tensors when it is added.

Writers add text. The draft runs exactly this text, in eval mode under no_grad. So shapes and values are known
and need not be computed by hand. If a line raises, or its value is degenerate, the line and everything added
with it are undone. Values and attributes have placeholder names (`v3_`, `m2_`) until `render` names them.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from synth_core.errors import CannotWrite
from synth_core.operators.operator import Kind
from synth_core.synthesis.parts import Attribute, Input, Line, Mark, Value
from synth_core.synthesis.sizes import Sizes
from synth_core.synthesis.targets import pick

MOST_ELEMENTS = 1 << 15  # elements of one value; so a program takes a few milliseconds on one core
PLACEHOLDER = re.compile(r"\b(?:v|m)\d+_\b")


@dataclass
class Draft:
    """The program so far. `rng` makes every random choice. `sizes` holds the named numbers."""

    rng: random.Random
    sizes: Sizes
    most_inputs: int = 5
    dtype: str = ""  # of inputs and parameters, as in `torch.bfloat16`; empty for torch's default
    steps: list[str] = field(default_factory=list)  # the operators written so far, in order
    private: set[str] = field(default_factory=set)  # names of intermediate values within one operator
    inputs: list[Input] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    heads: list[Value] = field(
        default_factory=list
    )  # results that are returned in addition to the last value
    role: str = "operator"
    operator: str = ""
    idle: bool = False
    again: str = ""
    sharing: str = ""  # how to share weights: by a `pair` of inputs or `twice`; empty: not, or already done
    bridge_to: Kind | None = None  # the kind that the next track needs; set for the last operator of a track
    counter: int = 0

    def __post_init__(self) -> None:
        self.module = SimpleNamespace()
        self._torch_dtype = getattr(torch, self.dtype.removeprefix("torch.") or "float32")
        self.env: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "math": math, "self": self.module}

    # --- adding text -----------------------------------------------------------------------------

    def attribute(self, hint: str, text: str) -> str:
        """Add `self.<hint> = text`. Returns the text by which forward refers to it."""
        name = self._fresh("m")
        made = self._run(text)
        if isinstance(made, nn.Module):
            made = made.eval()
        if self.dtype and isinstance(made, nn.Module):
            made = made.to(self._torch_dtype)
        elif self.dtype and isinstance(made, nn.Parameter):
            made = nn.Parameter(made.to(self._torch_dtype))
        setattr(self.module, name, made)
        self.attributes.append(Attribute(name, hint, text))
        return f"self.{name}"

    def parameter(self, hint: str, text: str) -> str:
        return self.attribute(hint, f"nn.Parameter({text})")

    def number(self, name: str, value: float) -> str:
        """A number that forward needs: a literal, or an argument of __init__ that is stored on self."""
        if self.rng.random() < 0.5:
            return repr(value)
        return self.attribute(name, self.sizes.constant(name, value, self.env))

    def emit(self, text: str, kind: Kind, hint: str, role: str = "") -> Value:
        """Add `<new value> = text`."""
        return self.emit_many(text, (kind,), (hint,), role=role)[0]

    def emit_many(
        self, text: str, kinds: Sequence[Kind], hints: Sequence[str], targets: str = "", role: str = ""
    ) -> tuple[Value, ...]:
        """Add a line that binds several values. `targets` is its left side, with `{}` for each value."""
        results = self._run(text)
        if len(kinds) == 1 and not targets:
            results = (results,)
        names = [self._fresh("v") for _ in kinds]
        if targets:
            results = pick(results, targets)
        outs = tuple(
            self._value(name, tensor, kind, hint)
            for name, tensor, kind, hint in zip(names, results, kinds, hints, strict=True)
        )
        left = targets.format(*names) if targets else ", ".join(names)
        self._line(outs, text, role, targets=left)
        return outs

    def block(self, text: str, kind: Kind, hint: str) -> Value:
        """Add several statements. `{out}` in them is the new value."""
        name = self._fresh("v")
        body = text.replace("{out}", name)
        self._run_statements(body)
        value = self._value(name, self.env[name], kind, hint)
        self._line((value,), body, block=True)
        return value

    def input(self, kind: Kind, hint: str = "x", like: Value | None = None, width: int = 0) -> Value:
        """Add a floating-point input: with the program's own sizes, or with the shape of the value `like`."""
        shape = self.sizes.texts_like(like, self.env) if like else self.sizes.shape(kind, self.env, width)
        maker = self.rng.choices(("randn", "rand"), (9, 1))[0]
        dtype = f", dtype={self.dtype}" if self.dtype else ""
        return self.input_from(f"torch.{maker}({', '.join(shape)}{dtype})", shape, kind, hint)

    def input_from(self, factory: str, axes: Sequence[str], kind: Kind, hint: str) -> Value:
        """Add an input that the expression `factory` makes. axes: the texts of its sizes."""
        if len(self.inputs) >= self.most_inputs:
            raise CannotWrite(f"{self.most_inputs} inputs are enough")
        value = self._value(self._fresh("v"), self._run(factory), kind, hint)
        self.inputs.append(Input(value, factory, tuple(axes)))
        return value

    def drop_unread_attributes(self) -> None:
        """Remove attributes that no line uses. A writer may make one for a spelling that it then drops."""
        text = "\n".join(line.text for line in self.lines)
        self.attributes = [a for a in self.attributes if re.search(rf"\b{a.name}\b", text)]

    def rerun(self) -> None:
        """Run every line again, because a layer has changed."""
        for line in self.lines:
            self._run_statements(line.statement)
        for value in self.values:
            value.tensor = self.env[value.name]

    # --- looking back ----------------------------------------------------------------------------

    @property
    def offered(self) -> list[Value]:
        """The floating-point values that a later step may use."""
        return [v for v in self.values if v.name not in self.private and v.tensor.is_floating_point()]

    def dangling(self) -> list[Value]:
        """Values that nothing reads and that are not heads, in the order in which they were made."""
        read = {name for line in self.lines for name in line.reads}
        returned = {value.name for value in self.heads}
        return [v for v in self.values if v.name not in read and v.name not in returned]

    @property
    def chain(self) -> bool:
        """Whether there is one input and one result, and no line reads two different values."""
        return (
            len(self.inputs) == 1 and not self.heads and all(len(set(line.reads)) < 2 for line in self.lines)
        )

    def ancestors(self, value: Value) -> set[str]:
        """The names of all values from which it was computed."""
        found: set[str] = set()
        waiting = [value.name]
        reads = {out.name: line.reads for line in self.lines for out in line.outs}
        while waiting:
            for name in reads.get(waiting.pop(), ()):
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return found

    def choose(self, *options: str) -> str:
        return self.rng.choice(options)

    # --- undoing ---------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """The current length of the program, for `undo`."""
        return Mark(
            inputs=len(self.inputs),
            attributes=len(self.attributes),
            lines=len(self.lines),
            values=len(self.values),
            heads=len(self.heads),
            steps=len(self.steps),
            constants=len(self.sizes.constants),
            widths=len(self.sizes.widths),
        )

    def undo(self, mark: Mark) -> None:
        """Remove everything added since the mark. Placeholder names are not used a second time."""
        del self.inputs[mark.inputs :]
        del self.attributes[mark.attributes :]
        del self.lines[mark.lines :]
        del self.values[mark.values :]
        del self.heads[mark.heads :]
        del self.steps[mark.steps :]
        self.sizes.shrink(mark.constants, mark.widths)

    # --- inside ----------------------------------------------------------------------------------

    def _fresh(self, letter: str) -> str:
        self.counter += 1
        return f"{letter}{self.counter}_"

    def _run(self, text: str) -> Any:
        try:
            return eval(text, self.env)
        except Exception as error:  # torch rejects the line, so it is not written
            raise CannotWrite(f"{text}: {error}") from None

    def _run_statements(self, text: str) -> None:
        try:
            exec(text, self.env)
        except Exception as error:
            raise CannotWrite(str(error)) from None

    def _value(self, name: str, tensor: Any, kind: Kind, hint: str) -> Value:
        if not isinstance(tensor, torch.Tensor):
            raise CannotWrite(f"{hint} is not a tensor")
        if tensor.numel() > MOST_ELEMENTS:
            raise CannotWrite(f"{hint} would have {tensor.numel()} elements")
        self.env[name] = tensor
        value = Value(name, tensor, kind, hint)
        self.values.append(value)
        return value

    def _line(
        self, outs: tuple[Value, ...], text: str, role: str = "", targets: str = "", block: bool = False
    ) -> None:
        line = Line(
            outs,
            text,
            role or self.role,
            self.operator,
            block=block,
            targets=targets,
            idle=self.idle,
            step=len(self.steps),
            again=self.again,
        )
        self.lines.append(line)
