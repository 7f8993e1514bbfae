"""What is kept on disk: shards between tasks, the ledger of a run, program files, the exported dataset."""

from synth_core.store.shards import read_shard, write_shard

__all__ = ["read_shard", "write_shard"]
