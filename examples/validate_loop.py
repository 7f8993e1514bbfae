"""Validation in a loop. Usage: python validate_loop.py --count 3 --folder sound

Writes programs, proves each one sound, and keeps those that are. A program runs only in the sandboxed worker,
so it may come from anywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import synth_core


def write(folder: Path, count: int) -> Iterator[Path]:
    """Write programs, one file each. They are read as the work proceeds, so there may be any number."""
    for seed in range(count):
        program = synth_core.synthesize(["Conv2d", "GELU", "Linear"], seed=seed)
        path = folder / f"{seed}" / f"{program.name}.py"  # a file has the name of its class
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(program.source)
        yield path
    unsound = folder / "unsound" / "unsound.py"
    unsound.parent.mkdir(exist_ok=True)
    unsound.write_text("import torch\nmodel = torch.nn.Linear(3, 3)\n")
    yield unsound


def main(folder: Path, count: int) -> None:
    """Validate `count` programs and one bad program, and delete those that are not sound."""
    settings = synth_core.ValidationSettings(timeout=120)  # CPU seconds for each stage
    # One warm worker for all programs. It starts with the first and ends with the block.
    with synth_core.Validator(settings) as validator:
        for path, result in validator.as_completed(write(folder, count)):
            if result.accepted:
                print(f"kept     {path}: {', '.join(result.realised_operators)}")
            else:
                print(f"deleted  {path}: {result.category}, {result.detail}")
                path.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("sound"))
    options = parser.parse_args()
    main(options.folder, options.count)
