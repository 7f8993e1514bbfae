"""When a batch counts as done already: the first of two caches (the other is per candidate, in synth_core).

A task run is recognised by its stage and the stage's version, the operator signatures of its candidates,
the digest of everything upstream made of them, and the settings that can change what this stage makes. All
other settings (the number of workers, a budget, a timeout of the network) leave the key alone.
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
from synth_core.store import note_settled
from tasks.versions import VALIDATION, stage_version, torch_release

_HOW_TO_VALIDATE = tuple(
    f"validation.{name}"
    for name in (
        "timeout",
        "memory_mb",
        "device",
        "skip_checks",
        "reject_rules",
        "warn_rules",
        "allow_unsandboxed",
    )
)

# Which settings can change what a stage makes of the same input.
MATTERS: dict[Stage, tuple[str, ...]] = {
    Stage.SAMPLE: (),
    Stage.PROMPT: ("model_name",),
    Stage.LLM: tuple(
        f"provider.{name}" for name in ("model_id", "base_url", "api", "max_tokens", "sizes", "shape_sets")
    ),
    Stage.EXTRACT: (),
    Stage.VALIDATE_EAGER: _HOW_TO_VALIDATE,
    Stage.VALIDATE_COMPILE: _HOW_TO_VALIDATE,
    Stage.FILTER: (),
    Stage.PERSIST: (),
}

# These read the folder, which other runs change, and belong to a run with all its settings. The candidates
# that `sample` makes know no run for all that.
_PER_RUN = frozenset({Stage.SAMPLE, Stage.FILTER, Stage.PERSIST})


class Batch(Record):
    """What the first stage is given: where the candidates of one batch come from.

    A first attempt has `strategy` and `start`..`stop`, positions in the run. A further attempt has
    `sources`, the finished batches of the round before whose failures are tried again.
    """

    round: int = 0
    batch: int = 0
    strategy: str
    parameters: str = ""  # the strategy with every value decided, as JSON
    start: int = 0
    stop: int = 0
    sources: tuple[Manifest, ...] = ()

    @property
    def digest(self) -> str:
        """Recognises the batch, as a manifest's digest does."""
        made_of = [self.parameters, self.start, self.stop, *(source.digest for source in self.sources)]
        return sha256(json.dumps(made_of))

    @property
    def signature(self) -> str:
        """Nothing is sampled yet, so the batch stands for its operators."""
        return self.digest[:16]


@dataclass(frozen=True)
class Shelf:
    """Where one run keeps the shards of its batches, and by which name it finds them again.

    texts: what else a stage depends on. root: where shards are kept instead of under output_dir, which
    another machine may not have. settled: what `read_settled` gives.
    """

    settings: Settings
    run_id: str
    texts: Mapping[Stage, str] = field(default_factory=dict)
    root: Path | None = None
    settled: Mapping[str, str] = field(default_factory=dict)

    def key(self, stage: Stage, upstream: Batch | Manifest) -> str:
        """File-name-safe identity of this stage's work on this batch; a settled one keeps what it had."""
        settled = self.settled.get(_work(stage, upstream))
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
        """The shard, if it was made before."""
        shard = self.shard(stage, key)
        _note_use(shard)
        return shard if shard.exists() else None

    def settle(self, batch: Batch, manifests: Sequence[Manifest]) -> None:
        """Note the shards of a batch that the run has persisted: for this run they are final.

        Later rounds are made of what failed in it. Were it done anew, after an upgrade or because some of it
        met an outage, they would no longer fit. It stays open only where a budget left some unasked.
        Raises `EnvironmentFault` where the disk does not take it.
        """
        if manifests[-1].total < manifests[0].total:
            return
        upstream: list[Batch | Manifest] = [batch, *manifests[:-1]]
        keys = {_work(m.stage, u): Path(m.path).stem for m, u in zip(manifests, upstream, strict=True)}
        if not keys.items() <= self.settled.items():
            place = {"round": batch.round, "batch": batch.batch}
            note_settled(self.settings.output_dir, self.run_id, keys, **place)

    @property
    def results(self) -> Path:
        """Prefect's records of finished task runs; they lie here so that any server may drive the run.

        They name shards by whole paths, so those of a folder that was moved since are left aside.
        """
        return self._folder / "results" / sha256(self.settings.output_dir)[:8]

    @property
    def _folder(self) -> Path:
        return self.root or Path(self.settings.output_dir) / ".synth"


@dataclass
class OperatorSignatures(CachePolicy):
    """Prefect's cache by operator signature. A record whose shard is gone is forgotten: it can't be a hit."""

    stage: Stage = Stage.SAMPLE
    shelf: Shelf | None = None

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str:
        assert self.shelf is not None
        upstream: Batch | Manifest = inputs["upstream"]
        key = self.shelf.key(self.stage, upstream)
        # By place too: a record holds the manifest, which says where in its run a batch stood. The shard of
        # another run's batch is found nevertheless.
        name = f"{key}-r{upstream.round:03d}-b{upstream.batch:06d}"
        record = self.shelf.results / name
        if self.shelf.find(self.stage, key) is None:
            record.unlink(missing_ok=True)
        _note_use(record)
        return name


def _note_use(path: Path) -> None:
    """`synth cache prune` goes by it."""
    with contextlib.suppress(OSError):  # there is none, or it is another user's
        os.utime(path)


def _work(stage: Stage, upstream: Batch | Manifest) -> str:
    return f"{stage}:{upstream.digest[:24]}"


def _lookup(dump: Mapping[str, Any], dotted: str) -> Any:
    value: Any = dump
    for part in dotted.split("."):
        value = value[part]
    return value
