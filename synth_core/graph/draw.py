"""Fresh inputs from a seed. Needs torch alone.

The same code runs beside the program and in the process that proves, and gives the same tensors in both, on
whatever device they lie. Values stay in the range of what the program itself drew, so that an index stays
valid and a mask a mask: each element is one of the tensor's own, drawn anew, and a float is moved a little
besides, so that every element changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

MOVE = 0.1  # standard deviation of the move, relative to the spread of the tensor's values
BLOCK = 1_048_583  # elements drawn at most; a larger tensor repeats them. A prime, so that no axis lines up


def fresh(inputs: Sequence[torch.Tensor], seed: int, most: int | None = None) -> list[torch.Tensor]:
    """The inputs with other values: same shapes, strides, dtypes and devices.

    most: how many values of each input are drawn from; None: all.
    """
    return [
        drawn(values_of(tensor.detach(), most), torch.empty_like(tensor), seed, position)
        for position, tensor in enumerate(inputs)
    ]


def values_of(tensor: torch.Tensor, most: int | None = None) -> torch.Tensor:
    """The tensor's values in a row, or every n-th of them, so that they are at most `most`."""
    values = tensor.reshape(-1)
    if most is None or len(values) <= most:
        return values
    return values[:: -(-len(values) // most)].contiguous()


def drawn(values: torch.Tensor, empty: torch.Tensor, seed: int, position: int) -> torch.Tensor:
    """`empty` filled with what is drawn from `values`, for the input at that position."""
    count = empty.numel()
    if not count:
        return empty
    generator = torch.Generator().manual_seed((seed * 1_000_003 + position) % 2**63)
    places = torch.randint(len(values), (min(count, BLOCK),), generator=generator)
    block = values[places.to(values.device)].cpu()
    if block.is_complex():
        parts = (_moved(block.real, generator), _moved(block.imag, generator))
        block = torch.complex(*parts).to(block.dtype)
    elif block.is_floating_point():
        block = _moved(block, generator).to(block.dtype)
    filled = block.to(empty.device).repeat(-(-count // len(block)))[:count]
    return empty.copy_(filled.reshape(empty.shape))


def _moved(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each value moved by noise, in double precision, between the least and the greatest of them."""
    wide = values.double()
    finite = wide[wide.isfinite()]
    if not finite.numel():
        return wide
    low, high = float(finite.min()), float(finite.max())
    spread = float(finite.std(correction=0)) or abs(high) or 1.0
    noise = torch.randn(wide.shape, generator=generator, dtype=torch.float64)
    moved = wide + noise * (MOVE * spread)
    within = moved.clamp(low, high) if low < high else moved
    return torch.where(wide.isfinite(), within, wide)
