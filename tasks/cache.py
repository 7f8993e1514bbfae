"""The cache of whole batches, as shards. synth_core has a second cache, of single candidates.

A key consists of the stage and its version, the operator signatures of the candidates, the digest of all
work upstream, and the settings that affect the output of this stage. Other settings (the number of workers,
a budget, a network timeout) are not part of the key.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from synth_core.records import Manifest, Record, Stage, sha256
from synth_core.settings import Settings
from synth_core.settings.option import settings_of
from synth_core.store import note_settled
from tasks.versions import VALIDATION, stage_version, torch_release

# The settings that can change what a stage makes of the same input. Each field declares its stages itself.
MATTERS: dict[Stage, tuple[str, ...]] = {stage: settings_of(stage, Settings) for stage in Stage}

# These stages read the shared folder, so their key includes the run id. The candidates that `sample` makes
# do not depend on the run, so the key of `prompt` does not include it.
_PER_RUN = frozenset({Stage.SAMPLE, Stage.FILTER, Stage.PERSIST})


class Batch(Record):
    """The input of the first stage: it says where the candidates of one batch come from.

    First attempts have `strategy` and the positions `start` to `stop` in the run. Retries have `sources`,
    the finished batches of the round before whose failures are tried again.
    """

    round: int = 0
    batch: int = 0
    strategy: str
    parameters: str = ""  # the strategy with all its values, as JSON
    start: int = 0
    stop: int = 0
    sources: tuple[Manifest, ...] = ()

    @property
    def digest(self) -> str:
        """Identifies the batch, as a manifest's digest does."""
        made_of = [self.parameters, self.start, self.stop, *(source.digest for source in self.sources)]
        return sha256(json.dumps(made_of))

    @property
    def signature(self) -> str:
        """Stands for the operator signatures, because nothing has been sampled yet."""
        return self.digest[:16]


@dataclass(frozen=True)
class ShardCache:
    """The shards of one run, by key.

    texts: what else a stage's output depends on. root: the folder of the shards, if this machine cannot reach
    output_dir. settled: the keys of settled batches, as `read_settled` returns them.
    """

    settings: Settings
    run_id: str
    texts: Mapping[Stage, str] = field(default_factory=dict)
    root: Path | None = None
    settled: Mapping[str, str] = field(default_factory=dict)

    def key(self, stage: Stage, upstream: Batch | Manifest) -> str:
        """Return the key of this stage's work on this batch, a file name. A settled batch keeps its key."""
        settled = self.settled.get(_work_id(stage, upstream))
        if settled and self.shard(stage, settled).exists():
            return settled
        dump = self.settings.model_dump(mode="json")
        matters: list[Any] = [self.settings.output_dir, self.texts.get(stage, "")]
        matters += [_lookup(dump, name) for name in MATTERS[stage]]
        if stage in VALIDATION:
            matters.append(torch_release())
        if stage in _PER_RUN:
            matters.append(self.run_id)
        rest = sha256(json.dumps([upstream.digest, matters]))[:24]
        return f"{stage}-{stage_version(stage)}-{upstream.signature}-{rest}"

    def shard(self, stage: Stage, key: str) -> Path:
        return self._folder / "shards" / stage / f"{key}.parquet"

    def find(self, stage: Stage, key: str) -> Path | None:
        """Return the shard if it exists."""
        shard = self.shard(stage, key)
        _note_use(shard)
        return shard if shard.exists() else None

    def settle(self, batch: Batch, manifests: Sequence[Manifest]) -> None:
        """Record the shards of a persisted batch. They are final for this run.

        Later rounds retry what failed in the batch. If it were done again, after an upgrade or because it met
        an outage, those rounds would no longer match. A batch that the budget did not cover is not settled.
        Raises `EnvironmentFault` if the record cannot be written.
        """
        if manifests[-1].total < manifests[0].total:
            return
        upstream: list[Batch | Manifest] = [batch, *manifests[:-1]]
        keys = {_work_id(m.stage, u): Path(m.path).stem for m, u in zip(manifests, upstream, strict=True)}
        if not keys.items() <= self.settled.items():
            place = {"round": batch.round, "batch": batch.batch}
            note_settled(self.settings.output_dir, self.run_id, keys, **place)

    @property
    def results(self) -> Path:
        """The folder of Prefect's records of finished task runs. Any server can resume a run from it.

        Records contain absolute paths, so a folder that has moved gets new ones.
        """
        return self._folder / "results" / sha256(self.settings.output_dir)[:8]

    @property
    def _folder(self) -> Path:
        return self.root or Path(self.settings.output_dir) / ".synth"


@dataclass
class OperatorSignatures(CachePolicy):
    """Prefect's cache policy. The key is that of `ShardCache.key`, with the round and the batch.

    If the shard is missing, Prefect's record of the finished task is deleted, so the task runs again.
    """

    stage: Stage = Stage.SAMPLE
    cache: ShardCache | None = None

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str:
        assert self.cache is not None
        upstream: Batch | Manifest = inputs["upstream"]
        key = self.cache.key(self.stage, upstream)
        # The name includes the position, because a record holds the manifest, which names the batch's
        # position. Shards have no position in their key, so one run finds those of another.
        name = f"{key}-r{upstream.round:03d}-b{upstream.batch:06d}"
        record = self.cache.results / name
        if self.cache.find(self.stage, key) is None:
            record.unlink(missing_ok=True)
        _note_use(record)
        return name


def _note_use(path: Path) -> None:
    """Set the time of last use, by which `synth cache prune` decides."""
    with contextlib.suppress(OSError):  # it does not exist, or it belongs to another user
        os.utime(path)


def _work_id(stage: Stage, upstream: Batch | Manifest) -> str:
    return f"{stage}:{upstream.digest[:24]}"


def _lookup(dump: Mapping[str, Any], dotted: str) -> Any:
    value: Any = dump
    for part in dotted.split("."):
        value = value[part]
    return value
