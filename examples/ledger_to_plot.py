"""From the ledger to a plot. Usage: python ledger_to_plot.py synth-output yield.svg

Draws how many candidates of each length were accepted, and why the others were dropped. The ending of the
file's name chooses SVG, PNG, PDF or HTML.
"""

from __future__ import annotations

import sys
from pathlib import Path

import altair as alt
import polars as pl

import synth_core


def main(folder: Path, to: Path) -> None:
    """Plot all candidates of all runs of `folder`, the output folder of `synth generate`."""
    ledger = synth_core.read_ledger(folder, columns=["accepted", "category", "requested"])
    table = ledger.select(
        pl.col("requested").list.len().alias("operators"),
        pl.when("accepted").then(pl.lit("accepted")).otherwise("category").alias("outcome"),
    )
    print(table.group_by("outcome").len().sort("len", descending=True))
    chart = (
        alt.Chart(table.group_by("operators", "outcome").len(name="candidates"), title=f"Yield of {folder}")
        .mark_bar()
        .encode(
            x=alt.X("operators:O", title="operators asked for"),
            y=alt.Y("candidates:Q", axis=alt.Axis(tickMinStep=1)),
            color="outcome:N",
        )
    )
    chart.save(to)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: ledger_to_plot.py OUTPUT_DIR PICTURE.svg")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
