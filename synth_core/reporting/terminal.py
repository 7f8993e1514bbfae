"""The report as terminal output: first the yield, then what was dropped and why."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synth_core.reporting.report import Report, Spend

_WEAK_OPERATORS = 8
_FAILURES = 10
_FEWEST_JUDGED = 5  # with fewer, an operator's rate is not meaningful


def print_report(report: Report, console: Console) -> None:
    """Print the report. Empty tables are left out."""
    console.print(_headline(report))
    _table(
        console,
        "Yield by strategy",
        ("strategy", "attempted", "accepted", "yield"),
        ((row.name, row.attempted, row.accepted, f"{row.rate:.1%}") for row in report.strategies),
    )
    _table(
        console,
        "Why candidates were dropped",
        ("stage", "category", "count", "share", "most frequent detail"),
        (
            (row.stage, row.category, row.count, f"{row.share:.1%}", one_line(row.detail))
            for row in report.failures[:_FAILURES]
        ),
    )
    weak = [row for row in report.operators if row.judged >= _FEWEST_JUDGED and row.rate < 1]
    _table(
        console,
        "Least successful operators",
        ("operator", "group", "judged", "sound", "95% interval"),
        (
            (row.name, row.group, row.judged, f"{row.rate:.0%}", f"{row.low:.0%} to {row.high:.0%}")
            for row in weak[:_WEAK_OPERATORS]
        ),
    )


def money(usd: float, unpriced: int = 0) -> str:
    """Dollars with two or four decimals, and the number of calls of unknown price, as in `$1.20 + 3 unpriced
    calls`. Without any known price: `unknown`."""
    amount = f"${usd:.2f}" if usd >= 1 or not usd else f"${usd:.4f}"
    if not unpriced:
        return amount
    return f"{amount} + {unpriced} unpriced calls" if usd else f"unknown ({unpriced} unpriced calls)"


def calls(spend: Spend) -> str:
    """As in `6 calls (2 failed for $0.0100, 1 lost at a kill, up to $0.0300 more of unknown usage)`."""
    parts = []
    if spend.failed:
        cost = f" for {money(spend.failed_cost_usd)}" if spend.failed_cost_usd else ""
        parts.append(f"{spend.failed} failed{cost}")
    if spend.lost:
        parts.append(f"{spend.lost} lost at a kill")
    if spend.unsaid_usd:
        parts.append(f"up to {money(spend.unsaid_usd)} more of unknown usage")
    return f"{spend.calls} calls" + (f" ({', '.join(parts)})" if parts else "")


def duration(seconds: float | None) -> str:
    """As in `850 ms`, `42 s`, `3 min 20 s` or `5 h 12 min`. A dash for None."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def one_line(detail: str, width: int = 100) -> str:
    """The first line of a detail, cut at `width` characters."""
    first = detail.strip().split("\n", 1)[0]
    return first if len(first) <= width else first[: width - 1] + "…"


def _headline(report: Report) -> Text:
    text = Text()
    text.append(f"{report.accepted} programs accepted", style="bold green" if report.accepted else "bold red")
    text.append(f" of {report.attempted} attempts ({report.rate:.1%})")
    if report.attempted > report.candidates:
        text.append(f"; of {report.candidates} candidates, {report.first_yield:.1%} at the first attempt,")
        text.append(f" {report.final_yield:.1%} with {report.further}")
    if report.spend.calls:
        text.append(f"; {calls(report.spend)}, {money(report.spend.cost_usd, report.spend.unpriced)}")
    if report.span_s is not None:
        text.append(f"; {duration(report.span_s)} from start to end")
    return text


def _table(
    console: Console, title: str, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]
) -> None:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for column in columns:
        right = column in ("attempted", "accepted", "yield", "count", "share", "judged", "sound")
        table.add_column(column, justify="right" if right else "left", header_style="dim")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    if table.row_count:
        console.print()
        console.print(table)
