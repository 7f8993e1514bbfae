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


def fresh(inputs: Sequence[torch.Tensor], seed: int) -> list[torch.Tensor]:
    """The inputs with other values: same shapes, strides, dtypes and devices."""
    return [_fresh(tensor.detach(), seed, position) for position, tensor in enumerate(inputs)]


def _fresh(tensor: torch.Tensor, seed: int, position: int) -> torch.Tensor:
    count = tensor.numel()
    drawn = torch.empty_like(tensor)
    if not count:
        return drawn
    generator = torch.Generator().manual_seed((seed * 1_000_003 + position) % 2**63)
    places = torch.randint(count, (min(count, BLOCK),), generator=generator)
    block = tensor.reshape(-1)[places.to(tensor.device)].cpu()
    if block.is_complex():
        parts = (_moved(block.real, generator), _moved(block.imag, generator))
        block = torch.complex(*parts).to(block.dtype)
    elif block.is_floating_point():
        block = _moved(block, generator).to(block.dtype)
    filled = block.to(tensor.device).repeat(-(-count // len(block)))[:count]
    return drawn.copy_(filled.reshape(tensor.shape))


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
