"""What a run came to: Polars tables over the ledger, printed or as one HTML page."""

from __future__ import annotations

from pathlib import Path

from synth_core.reporting.report import Report
from synth_core.reporting.summary import ALL_RUNS, summarise
from synth_core.reporting.terminal import print_report

__all__ = ["ALL_RUNS", "Report", "print_report", "summarise", "write_html"]


def write_html(report: Report, path: Path | str) -> Path:
    """Write the report as one self-contained HTML file, atomically, and return its path."""
    from synth_core.reporting import page  # draws charts: a second of imports that nothing else needs

    return page.write_html(report, path)
