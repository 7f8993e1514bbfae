"""The page's charts: Altair specifications, rendered to SVG text.

Colours are CSS variables (`var(--ink)`) of the page's style sheet, so one drawing works on a light
and on a dark page.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl
import vl_convert

from synth_core.reporting.report import Report

_WIDTH = 820  # px; the width of the plot, which the page scales down on narrow screens
_LABELS = 170  # px; the space for names on the left, the same for all fonts
_PALETTE = [f"var(--c{i})" for i in range(1, 8)]
_GROUP_COLOURS = {
    "core": "var(--c4)",
    "compound": "var(--c2)",
    "supporting": "var(--kept)",
    "motif": "var(--c3)",
}
_MOST_CATEGORIES = 6
_MOST_OPERATORS = 24
_FEWEST_JUDGED = 5  # with fewer, the interval covers almost the whole axis
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--dim)",
        "titleColor": "var(--dim)",
        "gridColor": "var(--line)",
        "domain": False,
        "ticks": False,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
    },
    "axisY": {"minExtent": _LABELS},
    "legend": {
        "labelColor": "var(--dim)",
        "labelFontSize": 12,
        "orient": "bottom",
        "title": None,
        "columns": 5,
    },
}


def funnel(report: Report) -> str:
    """For each stage: how many candidates passed, and how many were dropped, by category."""
    named = list(report.rejected)[:_MOST_CATEGORIES]
    cells = []
    for row in report.stages:
        cells.append({"stage": row.stage, "what": "passed", "count": row.left, "place": 0})
        for category, count in row.dropped.items():
            name = category if category in named else "other"
            cells.append({"stage": row.stage, "what": name, "count": count, "place": 1})
    kinds = ["passed", *named, *({"other"} & {cell["what"] for cell in cells})]
    chart = (
        alt.Chart(pl.DataFrame(cells))
        .mark_bar(height=18, cornerRadius=2)
        .encode(
            x=alt.X("sum(count):Q", title="candidates", axis=alt.Axis(format="~s", tickCount=5)),
            y=alt.Y("stage:N", sort=None, title=None),
            color=alt.Color("what:N", scale=alt.Scale(domain=kinds, range=["var(--kept)", *_PALETTE])),
            order=alt.Order("place:Q"),
        )
    )
    return _svg(chart, height=26 * len(report.stages))


def operators(report: Report) -> str:
    """Success rates of the weakest operators, with 95% intervals. Empty if too few answers were judged."""
    rows = [row for row in report.operators if row.judged >= _FEWEST_JUDGED][:_MOST_OPERATORS]
    if not rows:
        return ""
    table = pl.DataFrame([row.model_dump() for row in rows])
    groups = [group for group in _GROUP_COLOURS if group in set(table["group"])]
    base = alt.Chart(table).encode(
        y=alt.Y("name:N", sort=None, title=None),
        color=alt.Color("group:N", scale=alt.Scale(domain=groups, range=[_GROUP_COLOURS[g] for g in groups])),
    )
    percent = alt.Axis(format="%", tickCount=5)
    spans = base.mark_rule(strokeWidth=2, opacity=0.55).encode(
        x=alt.X(
            "low:Q",
            title="share of judged answers that were sound",
            scale=alt.Scale(domain=[0, 1]),
            axis=percent,
        ),
        x2="high:Q",
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(x="rate:Q")
    return _svg(spans + dots, height=19 * len(rows))


def lengths(report: Report) -> str:
    """How many operators the accepted programs have. Empty if there are no accepted programs."""
    if not report.lengths:
        return ""
    table = pl.DataFrame({"operators": list(report.lengths), "programs": list(report.lengths.values())})
    chart = (
        alt.Chart(table)
        .mark_bar(color="var(--kept)", cornerRadius=2)
        .encode(
            x=alt.X("operators:O", title="operators in a program", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("programs:Q", title="programs", axis=alt.Axis(tickCount=4, format="~s")),
        )
    )
    return _svg(chart, height=130)


def _svg(chart: Any, *, height: int) -> str:
    sized = chart.properties(width=_WIDTH, height=height).configure(**_CONFIG)
    return str(vl_convert.vegalite_to_svg(sized.to_dict()))
