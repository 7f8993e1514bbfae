"""The report of a run: Polars queries over the ledger, printed as tables or written as one HTML page."""

from __future__ import annotations

from pathlib import Path

from synth_core.reporting.report import Report
from synth_core.reporting.summary import ALL_RUNS, summarise
from synth_core.reporting.terminal import print_report
from synth_core.store import hidden_folder, run_folder

__all__ = ["ALL_RUNS", "Report", "print_report", "summarise", "write_html", "write_report"]


def write_html(report: Report, path: Path | str) -> Path:
    """Write the report as one self-contained HTML file, atomically. Returns its path."""
    from synth_core.reporting import page  # here, because the chart libraries take a second to import

    return page.write_html(report, path)


def write_report(output_dir: Path | str, run_id: str = "") -> tuple[Report, Path]:
    """Summarise a run and write its HTML page to the run's folder, replacing an older page.

    run_id: empty: the newest run; `ALL_RUNS`: all runs of the folder.
    Raises `UsageError` if there is no such run.
    """
    report = summarise(output_dir, run_id or None)
    home = report.output_dir
    folder = run_folder(home, report.run_id) if report.run_id else hidden_folder(home)
    return report, write_html(report, folder / "report.html")
