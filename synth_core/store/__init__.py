"""Everything on disk: shards between tasks, the ledger of a run, program files, the exported dataset."""

from synth_core.store.export import export_dataset
from synth_core.store.ledger import Attempts, accepted_programs, append_ledger, scan_ledger
from synth_core.store.programs import persist
from synth_core.store.runs import (
    Run,
    RunState,
    continue_run,
    finish_run,
    hidden_folder,
    latest_run,
    latest_unfinished_run,
    load_run,
    plan_run,
    refuse_pruned,
    run_folder,
    run_ids,
    save_run,
)
from synth_core.store.settled import note_settled, read_settled
from synth_core.store.shards import describe_shard, read_shard, write_shard

__all__ = [
    "Attempts",
    "Run",
    "RunState",
    "accepted_programs",
    "append_ledger",
    "continue_run",
    "describe_shard",
    "export_dataset",
    "finish_run",
    "hidden_folder",
    "latest_run",
    "latest_unfinished_run",
    "load_run",
    "note_settled",
    "persist",
    "plan_run",
    "read_settled",
    "read_shard",
    "refuse_pruned",
    "run_folder",
    "run_ids",
    "save_run",
    "scan_ledger",
    "write_shard",
]
