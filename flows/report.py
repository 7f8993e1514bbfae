"""The flow `report`: the page of a folder's newest run, or of a named one, and in the UI where it lies."""

from __future__ import annotations

from prefect import flow, get_run_logger

from flows.artifacts import show_report
from synth_core.reporting import summarise, write_html
from synth_core.store import latest_run, load_run


@flow(name="report", persist_result=False)
def report(output_dir: str, run_id: str = "") -> str:
    """Write the report of a run anew.

    Args:
        output_dir: Folder of the accepted programs.
        run_id: The run; empty: the newest of that folder.

    Returns:
        Where the page lies.
    """
    run = load_run(output_dir, run_id) if run_id else latest_run(output_dir)
    page = write_html(summarise(run.output_dir, run.run_id), run.folder / "report.html")
    get_run_logger().info("run=%s report=%s", run.run_id, page)
    show_report(page)
    return str(page)
