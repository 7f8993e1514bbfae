"""What a run came to: Polars tables over the ledger, printed or as one HTML page."""

from __future__ import annotations

from pathlib import Path

from synth_core.reporting.report import Report
from synth_core.reporting.summary import ALL_RUNS, summarise
from synth_core.reporting.terminal import print_report
from synth_core.store import hidden_folder, run_folder

__all__ = ["ALL_RUNS", "Report", "print_report", "summarise", "write_html", "write_report"]


def write_html(report: Report, path: Path | str) -> Path:
    """Write the report as one self-contained HTML file, atomically, and return its path."""
    from synth_core.reporting import page  # draws charts: a second of imports that nothing else needs

    return page.write_html(report, path)


def write_report(output_dir: Path | str, run_id: str = "") -> tuple[Report, Path]:
    """Sum up a run (empty: the newest; `ALL_RUNS`: the folder) and write its page anew, in its place."""
    report = summarise(output_dir, run_id or None)
    home = report.output_dir
    folder = run_folder(home, report.run_id) if report.run_id else hidden_folder(home)
    return report, write_html(report, folder / "report.html")
