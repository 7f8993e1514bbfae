"""Every option, once. `Settings` is plain data: the flow's parameter and the Prefect form.

`load_settings` (settings_sources.py) builds it from the command line, the environment and files. Nothing
else reads the environment, so a worker that is handed `Settings` behaves as the machine that resolved them.
Keys of providers are never part of it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from synth_core.errors import UsageError
from synth_core.records import Record
from synth_core.settings.values import Address, Folder, Names, Probability, Range, Scheduler, Storage

_MOST, _LONGEST = 10**9, 1e6  # candidates, seconds: what no run needs and a system call may not take
_MOST_ATTEMPTS_AN_ACCEPTED = 20  # ceiling of a run that was asked for num_accepted alone


class _Options(Record):
    """No option takes `nan` or `inf`: neither survives the JSON that a run is recorded in."""

    model_config = ConfigDict(allow_inf_nan=False)


class ProviderSettings(_Options):
    """How the LLM is called. Keys come from GEMINI_API_KEY and OPENAI_API_KEY, never from here."""

    model_id: str = Field(default="", description="Model name at the provider; empty: the provider's default")
    base_url: Address = Field(
        default="", description="Address of an OpenAI-compatible server (local, openai)"
    )
    api: Literal["chat", "completions"] = Field(
        default="chat", description="Which OpenAI-style endpoint to call"
    )
    max_tokens: int = Field(default=4096, ge=1, description="Longest answer, in tokens")
    timeout: float = Field(
        default=120.0, gt=0, le=_LONGEST, description="Hard deadline of one call, in seconds"
    )
    retries: int = Field(
        default=4, ge=0, description="Further tries of one call after a transient error; 0 means none"
    )
    concurrency: int = Field(
        default=64, ge=1, le=10_000, description="Most calls in flight at once; adapts below this by itself"
    )
    rpm: int = Field(default=0, ge=0, description="Requests a minute allowed; 0 means no limit of our own")
    tpm: int = Field(default=0, ge=0, description="Tokens a minute allowed; 0 means no limit of our own")
    ca_bundle: str = Field(default="", description="PEM file of the CA of a private server")
    secret_block: str = Field(
        default="", description="Name of the Prefect Secret block that holds the key; empty: environment"
    )
    batch: bool = Field(
        default=False, description="Use the provider's half-price batch mode (gemini, openai); takes hours"
    )
    sizes: Literal["small", "both"] = Field(
        default="small",
        description="both: also find GPU sizes for each program, kept in ledger and export (constructive)",
    )
    shape_sets: int = Field(
        default=0, ge=0, le=16, description="Further GPU shape sets to find for each program, with both sizes"
    )


class ValidationSettings(_Options):
    """How programs are proved sound."""

    timeout: float = Field(
        default=60.0,
        gt=0,
        le=_LONGEST,
        description="CPU seconds one program may take, and again its proof, per stage; sleeping counts too",
    )
    memory_mb: int = Field(default=4096, ge=256, le=2**30, description="Memory one program may take, in MiB")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where programs run")
    skip_checks: Names = Field(
        default=(), description="Checks to switch off, by name; `synth checks` lists them"
    )
    reject_rules: Names = Field(
        default=(), description="Downstream rules that reject a program where by default they only warn"
    )
    warn_rules: Names = Field(
        default=(), description="Downstream rules that only warn where by default they reject a program"
    )
    allow_unsandboxed: bool = Field(
        default=False, description="Accept resource limits as the only isolation (tier C)"
    )
    pool: Literal["local", "gpu"] = Field(
        default="local", description="Validate here, or hand shards to the deployment validate/gpu"
    )
    pool_wait: float = Field(
        default=900.0, ge=0, le=_LONGEST, description="Seconds to wait for a worker of the pool"
    )
    pool_storage: Storage = Field(
        default="",
        description="Folder or fsspec URL that the pool's workers reach too; empty: they share output_dir",
    )
    pool_fallback: Literal["local", "fail"] = Field(
        default="local",
        description="When the pool can't do it: validate here (on cuda only with a GPU), or end the run",
    )


class BudgetSettings(_Options):
    """Hard limits of a whole run; 0 means none. Reserved before a call, settled after it."""

    usd: float = Field(default=0.0, ge=0, description="US dollars")
    tokens: int = Field(default=0, ge=0, description="Input and output tokens together")
    calls: int = Field(default=0, ge=0, description="Provider requests, failed ones included")
    wall_s: float = Field(default=0.0, ge=0, description="Wall time of the run, in seconds")


class Settings(_Options):
    """All options of one run. Fields left at None take the strategy's value."""

    num_total_samples: int = Field(
        default=100,
        ge=1,
        le=_MOST,
        description="First attempts to make (with num_accepted: the ceiling, if given)",
    )
    num_accepted: int = Field(
        default=0, ge=0, le=_MOST, description="Go on until this many programs are accepted; 0: no target"
    )
    num_worker: int = Field(default=0, ge=0, le=4096, description="Programs validated at once; 0: one a core")
    model_name: str = Field(
        default="constructive",
        description="Provider: constructive, gemini, openai, local, or package.module:function of your own",
    )
    num_core_ops_range: Range | None = Field(default=None, description="Core operators a program, MIN,MAX")
    num_compound_ops_range: Range | None = Field(
        default=None, description="Compound operators a program, MIN,MAX"
    )
    num_supporting_ops_range: Range | None = Field(
        default=None, description="Supporting operators a program, MIN,MAX"
    )
    p_value: Probability | None = Field(
        default=None, description="Chance to stop adding operators at each step; lower means more operators"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None, description="Sampling temperature of the LLM"
    )
    max_retries: int = Field(
        default=1, ge=0, description="Further attempts at the same operators after a failed candidate"
    )
    on_failure: Literal["resample", "repair", "drop"] = Field(
        default="resample", description="What a further attempt is: asked anew, or repaired"
    )
    yield_floor: float = Field(
        default=0.3, ge=0, le=1, description="Share of attempts accepted below which a run raises an alarm"
    )
    skip_filters: Names = Field(
        default=(), description="Filters to switch off, by name; `synth checks` lists them"
    )
    output_dir: Folder = Field(default="synth-output", description="Folder of the accepted programs")
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="Seed of the run; none: draw one and record it"
    )
    strategy: str = Field(default="balanced", description="Name of a strategy, or path of a TOML file")
    sampler: Literal["uniform", "coherent", "coverage"] | None = Field(
        default=None, description="How operators are drawn"
    )
    prompt: str | None = Field(default=None, description="Prompt template: a name, or a file of your own")
    batch_size: int = Field(
        default=0, ge=0, description="Candidates a task run handles; 0: chosen from num_total_samples"
    )
    runner: Literal["thread", "dask"] = Field(
        default="thread", description="Where validation and synthesis run"
    )
    dask_address: Scheduler = Field(default="", description="Scheduler address; empty: a local cluster")
    cache_dir: str = Field(
        default="", description="Folder of the answer and verdict caches; empty: the user's cache folder"
    )
    provider: ProviderSettings = ProviderSettings()
    validation: ValidationSettings = ValidationSettings()
    budget: BudgetSettings = BudgetSettings()

    def resolved(self) -> Settings:
        """The same settings with every value that depends on this machine or on chance filled in.

        Draws the seed, counts the cores and makes paths absolute, so that a worker elsewhere, or a
        resumed run, does exactly what this one would. Raises `UsageError` for a folder that cannot be used.
        """
        ceiling = self.num_total_samples
        if self.num_accepted and "num_total_samples" not in self.model_fields_set:
            ceiling = _MOST_ATTEMPTS_AN_ACCEPTED * self.num_accepted
        return self.model_copy(
            update={
                "num_total_samples": ceiling,
                "seed": secrets.randbelow(2**32) if self.seed is None else self.seed,
                "num_worker": self.num_worker or len(os.sched_getaffinity(0)),
                "output_dir": str(Path(self.output_dir).absolute()),
                "cache_dir": str(_cache_folder(self.cache_dir)),
                "strategy": _whole(self.strategy) if self.strategy.endswith(".toml") else self.strategy,
                "provider": self.provider.model_copy(update={"ca_bundle": _whole(self.provider.ca_bundle)}),
            }
        )


def _whole(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _cache_folder(given: str) -> Path:
    cache = given or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "synth")
    if " " in cache:  # Inductor splits its compiler's command there
        raise UsageError(f"cache_dir {cache!r} holds a space; name another (SYNTH_CACHE_DIR)")
    folder = Path(cache).expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"cache_dir {cache!r} cannot be written to; name another (SYNTH_CACHE_DIR)")
    return folder
