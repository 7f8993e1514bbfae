"""The zygote as `--device cuda` has it, on a machine without a GPU: its workers compute on the CPU.

Run in place of supervisor/zygote.py. All else is as it is: vetting, workers, judge, second tries.
"""

from __future__ import annotations

from typing import Any

from synth_core.validation.inside import serving, warm
from synth_core.validation.supervisor import zygote

run = serving._run


def run_on_cpu(job: dict[str, Any], evidence: list[int], channel: Any) -> None:
    run({**job, "request": {**job["request"], "device": "cpu"}}, evidence, channel)


if __name__ == "__main__":
    warm.require_gpu = lambda: None
    warm.compile_sample = lambda device: None
    serving.memory_mb = lambda device: 80_000
    serving._run = run_on_cpu
    zygote.main()
