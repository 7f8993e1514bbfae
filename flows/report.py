"""The flow `report`: write the report of a run again, and link it in Prefect's UI."""

from __future__ import annotations

from prefect import flow, get_run_logger

from flows.pipeline.artifacts import show_report
from synth_core.reporting import write_report


@flow(name="report", persist_result=False)
def report(output_dir: str, run_id: str = "") -> str:
    """Write the report of a run again.

    Args:
        output_dir: Folder of the accepted programs.
        run_id: The run. Empty: the newest run of the folder. `all`: all runs in one page.

    Returns:
        The path of the page.
    """
    summary, page = write_report(output_dir, run_id)
    get_run_logger().info("run=%s report=%s", summary.run_id or run_id, page)
    show_report(page)
    return str(page)
