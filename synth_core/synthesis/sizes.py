"""The named numbers of a program: sizes of its inputs, widths of its layers, scalars.

Each is a constant at module level. The module gets those that it needs through __init__. A width that a layer
may choose is written with the name of an equal width, or gets a new name. A size that follows from others is
written as an expression of them (`extents`), so that the program stays valid when the constants change. If no
such expression exists, the size is a number, and the constants behind it cannot change.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from synth_core.operators.operator import Kind
from synth_core.synthesis.parts import Value

# Small enough for a few milliseconds on one core, and large enough for every operator to have an effect. The
# batch is smaller than most widths, so that an input rarely has the shape of a parameter.
BATCHES = (2, 3, 4, 5, 6)
WIDTHS = {
    Kind.VECTOR: (16, 24, 32, 48, 64, 96),
    Kind.SEQUENCE: (16, 24, 32, 48, 64),
    Kind.SIGNAL: (8, 12, 16, 24, 32),
    Kind.IMAGE: (4, 8, 12, 16, 24),
    Kind.VOLUME: (4, 8, 12),
}
EXTENTS = {
    Kind.VECTOR: (),
    Kind.SEQUENCE: (("seq_len", (6, 8, 9, 10, 12)),),
    Kind.SIGNAL: (("length", (24, 32, 36, 48, 64)),),
    Kind.IMAGE: (("height", (8, 12, 16, 20)), ("width", (8, 12, 16, 20))),
    Kind.VOLUME: (("depth", (4, 6, 8)), ("height", (6, 8, 12)), ("width", (6, 8, 12))),
}
INPUT_NAMES = {
    Kind.VECTOR: ("in_features", "input_dim"),
    Kind.SEQUENCE: ("embed_dim", "d_model", "input_size"),
    Kind.SIGNAL: ("in_channels",),
    Kind.IMAGE: ("in_channels",),
    Kind.VOLUME: ("in_channels",),
}
LAYER_NAMES = {
    Kind.VECTOR: ("hidden_features", "out_features", "mid_features"),
    Kind.SEQUENCE: ("hidden_dim", "proj_dim", "out_dim"),
    Kind.SIGNAL: ("hidden_channels", "out_channels", "mid_channels"),
    Kind.IMAGE: ("hidden_channels", "out_channels", "mid_channels"),
    Kind.VOLUME: ("hidden_channels", "out_channels", "mid_channels"),
}
MOST_NAMED_WIDTHS = 5


@dataclass
class Sizes:
    """The named numbers so far.

    constants: name -> value, in the order in which they were needed.
    widths: width -> its name.
    axes: name of a value of the program -> the texts of its axes. Filled by `extents.texts` on demand.
    extents: (name of a value, axis) -> text of the axis.
    """

    rng: random.Random
    constants: dict[str, float] = field(default_factory=dict)
    widths: dict[int, str] = field(default_factory=dict)
    axes: dict[str, list[str]] = field(default_factory=dict)
    extents: dict[tuple[str, int], str] = field(default_factory=dict)

    def shrink(self, constants: int, widths: int) -> None:
        """Keep only the first `constants` constants and the first `widths` widths."""
        for named, count in ((self.constants, constants), (self.widths, widths)):
            while len(named) > count:
                named.popitem()

    def constant(self, name: str, value: float, env: dict[str, Any]) -> str:
        """Name a number. If another value has the name already, a digit is added. Returns the name."""
        free, figure = name, 2
        while self.constants.get(free, value) != value:
            free, figure = f"{name}{figure}", figure + 1
        self.constants[free] = value
        env[free] = value
        return free

    def shape(self, kind: Kind, env: dict[str, Any], width: int = 0) -> list[str]:
        """Texts of a new input's axes, with the program's own names."""
        batch = self._extent("batch_size", BATCHES, env)
        if kind in (Kind.IMAGE, Kind.VOLUME) and "height" not in self.constants:
            self._image_extents(kind, env)
        extents = [self._extent(name, sizes, env) for name, sizes in EXTENTS[kind]]
        channels = self._input_width(kind, env, width)
        return [batch, *extents, channels] if kind is Kind.SEQUENCE else [batch, channels, *extents]

    def texts_like(self, value: Value, env: dict[str, Any]) -> list[str]:
        """Texts of the axes of a new input with the shape of a value. Its width may get a new name."""
        if value.name in self.axes:
            return list(self.axes[value.name])
        texts = self.describe(value)
        texts[value.axis] = self.width(value.channels, value.kind, env)
        return texts

    def describe(self, value: Value) -> list[str]:
        """Texts of a value's axes, with existing names only."""
        if value.name in self.axes:
            return list(self.axes[value.name])
        channels = value.axis % len(value.shape) if len(value.shape) > 1 else -1
        names = iter(name for name, _ in EXTENTS[value.kind])
        texts = []
        for axis, size in enumerate(value.shape):
            if axis == channels:
                texts.append(self._known(size) or str(size))
                continue
            name = "batch_size" if axis == 0 else next(names, "")
            texts.append(name if self.constants.get(name) == size else str(size))
        return texts

    def width(self, size: int, kind: Kind, env: dict[str, Any]) -> str:
        """Text of a width that a layer may choose: a name, a multiple of a named width, or the number."""
        known = self._known(size)
        unused = [name for name in LAYER_NAMES[kind] if name not in self.constants]
        if known or not unused or len(self.widths) >= MOST_NAMED_WIDTHS:
            return known or str(size)
        return self._name_width(unused[0], size, env)

    def _known(self, size: int) -> str:
        if size in self.widths:
            return self.widths[size]
        for known, name in self.widths.items():
            for factor in (2, 4):
                if size == factor * known:
                    return f"{factor} * {name}"
                if size * factor == known:
                    return f"{name} // {factor}"
        return ""

    def _extent(self, name: str, sizes: tuple[int, ...], env: dict[str, Any]) -> str:
        if name not in self.constants:
            self.constant(name, self.rng.choice(sizes), env)
        return name

    def _image_extents(self, kind: Kind, env: dict[str, Any]) -> None:
        """Draw height and width. Images are square with probability 0.7."""
        sizes = dict(EXTENTS[kind])["height"]
        height = self.rng.choice(sizes)
        self.constant("height", height, env)
        self.constant("width", height if self.rng.random() < 0.7 else self.rng.choice(sizes), env)

    def _input_width(self, kind: Kind, env: dict[str, Any], width: int) -> str:
        size = width or self.rng.choice(WIDTHS[kind])
        if size in self.widths:
            return self.widths[size]
        names = [name for name in INPUT_NAMES[kind] if name not in self.constants]
        if width or not names:
            return self.width(size, kind, env)
        return self._name_width(self.rng.choice(names), size, env)

    def _name_width(self, name: str, size: int, env: dict[str, Any]) -> str:
        self.widths[size] = name
        return self.constant(name, size, env)
