"""Every option, once. `Settings` is plain data: the flow's parameter and the Prefect form.

Each field declares its `Option`: how the command line spells it and which stages it affects. Everything else
follows from the field.

`load_settings` (sources.py) builds `Settings` from the command line, the environment and files. Nothing else
reads the environment. So a worker that gets `Settings` behaves like the machine that resolved them.
The keys of providers are never part of it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from synth_core.errors import UsageError
from synth_core.records import Record, Stage
from synth_core.settings.option import NO_STAGE, Option
from synth_core.settings.values import Address, Folder, Names, Probability, Range, Sampler, Scheduler, Storage

_MOST, _LONGEST = 10**9, 1e6  # candidates; seconds. No run needs more, and system calls fail above it.
_MOST_ATTEMPTS_AN_ACCEPTED = 20  # the limit on attempts, for each program asked for with num_accepted alone

_SAMPLE = (Stage.SAMPLE,)
_LLM = (Stage.LLM,)
_VALIDATE = (Stage.VALIDATE_EAGER, Stage.VALIDATE_COMPILE)

_Fallback = Literal["local", "fail"]


class _Options(Record):
    """No option can be `nan` or `inf`: the JSON that records a run has neither."""

    model_config = ConfigDict(allow_inf_nan=False)


class ProviderSettings(_Options):
    """How the LLM is called. Keys come from GEMINI_API_KEY and OPENAI_API_KEY, never from here."""

    model_id: Annotated[str, Option("--model-id NAME", _LLM)] = Field(
        default="", description="Model name at the provider; empty: the provider's default model"
    )
    base_url: Annotated[Address, Option("--base-url URL", _LLM)] = Field(
        default="", description="Address of the server; needed for local; empty: the provider's own address"
    )
    api: Annotated[Literal["chat", "completions"], Option("--api", _LLM)] = Field(
        default="chat", description="OpenAI-style endpoint to call"
    )
    max_tokens: Annotated[int, Option("--max-tokens", _LLM)] = Field(
        default=4096, ge=1, description="Maximum length of an answer, in tokens"
    )
    timeout: Annotated[float, Option("--provider-timeout SECONDS", NO_STAGE)] = Field(
        default=120.0, gt=0, le=_LONGEST, description="Time limit of one call, in seconds"
    )
    retries: Annotated[int, Option("--provider-retries", NO_STAGE)] = Field(
        default=4, ge=0, description="How often to repeat a call after a transient error; 0: never"
    )
    concurrency: Annotated[int, Option("--provider-concurrency", NO_STAGE)] = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Maximum number of calls in flight; fewer if the provider slows down or refuses calls",
    )
    rpm: Annotated[int, Option("--rpm", NO_STAGE)] = Field(
        default=0, ge=0, description="Maximum requests per minute; 0: only the provider's own limit"
    )
    tpm: Annotated[int, Option("--tpm", NO_STAGE)] = Field(
        default=0, ge=0, description="Maximum tokens per minute; 0: only the provider's own limit"
    )
    ca_bundle: Annotated[str, Option("--ca-bundle FILE", NO_STAGE)] = Field(
        default="", description="PEM file with the CA certificate of a private server"
    )
    secret_block: Annotated[str, Option("--secret-block NAME", NO_STAGE)] = Field(
        default="",
        description="Prefect Secret block with the provider's API key; empty: take it from the environment",
    )
    batch: Annotated[bool, Option("--provider-batch", NO_STAGE)] = Field(
        default=False,
        description="Use the provider's batch mode (gemini, openai): half the price, but it takes hours",
    )
    sizes: Annotated[Literal["small", "both"], Option("--sizes", _LLM)] = Field(
        default="small",
        description="small: only the sizes that validation uses; both: also find sizes that suit a GPU, for"
        " ledger and export (constructive only)",
    )
    shape_sets: Annotated[int, Option("--shape-sets", _LLM)] = Field(
        default=0,
        ge=0,
        le=16,
        description="With --sizes both: how many more sets of GPU sizes to find, beside the first",
    )


class ValidationSettings(_Options):
    """How programs are validated.

    The most used fields: `timeout` (CPU seconds in each stage), `memory_mb` (MiB), `device`,
    `skip_checks`, `reject_rules` and `warn_rules` (names that `synth checks` lists).
    """

    timeout: Annotated[float, Option("--validation-timeout SECONDS", _VALIDATE)] = Field(
        default=60.0,
        gt=0,
        le=_LONGEST,
        description="CPU time that one program may take in each stage, and again its proof, in seconds;"
        " time asleep counts too",
    )
    memory_mb: Annotated[int, Option("--memory-mb MIB", _VALIDATE)] = Field(
        default=4096, ge=256, le=2**30, description="Memory limit of one program, in MiB"
    )
    device: Annotated[Literal["cpu", "cuda"], Option("--device", _VALIDATE)] = Field(
        default="cpu", description="Device that programs run on"
    )
    skip_checks: Annotated[Names, Option("--skip-check NAME...", _VALIDATE)] = Field(
        default=(), description="Check to switch off (repeatable); `synth checks` lists the names"
    )
    reject_rules: Annotated[Names, Option("--reject-rule NAME...", _VALIDATE)] = Field(
        default=(),
        description="Let this rule reject a program, where it only warns by default (repeatable)",
    )
    warn_rules: Annotated[Names, Option("--warn-rule NAME...", _VALIDATE)] = Field(
        default=(), description="Let this rule warn only, where it rejects a program by default (repeatable)"
    )
    allow_unsandboxed: Annotated[bool, Option("--allow-unsandboxed", _VALIDATE)] = Field(
        default=False,
        description="Also run where no sandbox works: only time and memory are limited (tier C). Unsafe",
    )
    pool: Annotated[Literal["local", "gpu"], Option("--validation-pool", NO_STAGE)] = Field(
        default="local",
        description="local: validate on this machine; gpu: on the workers of the Prefect work pool gpu",
    )
    pool_wait: Annotated[float, Option("--validation-pool-wait SECONDS", NO_STAGE)] = Field(
        default=900.0, ge=0, le=_LONGEST, description="How long to wait for a worker of the pool, in seconds"
    )
    pool_storage: Annotated[Storage, Option("--pool-storage FOLDER|URL", NO_STAGE)] = Field(
        default="",
        description="Folder or fsspec URL that this machine and the pool's workers both reach; empty: they"
        " share output_dir",
    )
    pool_fallback: Annotated[_Fallback, Option("--validation-pool-fallback", NO_STAGE)] = Field(
        default="local",
        description="What to do if the pool cannot validate. local: validate on this machine (cuda needs a"
        " GPU here); fail: end the run",
    )


class BudgetSettings(_Options):
    """Hard limits of a whole run; 0 means no limit. Reserved before a call, settled after it."""

    usd: Annotated[float, Option("--budget-usd USD", NO_STAGE)] = Field(
        default=0.0,
        ge=0,
        description="Maximum cost in US dollars; 0: no limit (on resume: the limit that the run had)",
    )
    tokens: Annotated[int, Option("--budget-tokens", NO_STAGE)] = Field(
        default=0, ge=0, description="Maximum input and output tokens together; 0: no limit"
    )
    calls: Annotated[int, Option("--budget-calls", NO_STAGE)] = Field(
        default=0, ge=0, description="Maximum requests to the provider, with failed ones; 0: no limit"
    )
    wall_s: Annotated[float, Option("--budget-wall-s SECONDS", NO_STAGE)] = Field(
        default=0.0, ge=0, description="Maximum wall time of the run, in seconds; 0: no limit"
    )


class Settings(_Options):
    """All options of one run. A field that is None takes the strategy's value."""

    num_total_samples: Annotated[int, Option("--num-total-samples", NO_STAGE)] = Field(
        default=100,
        ge=1,
        le=_MOST,
        description="Number of first attempts; with --num-accepted N: their maximum, 20 * N if not given",
    )
    num_accepted: Annotated[int, Option("--num-accepted", NO_STAGE)] = Field(
        default=0,
        ge=0,
        le=_MOST,
        description="Continue until this number of programs is accepted; 0: no such target",
    )
    num_worker: Annotated[int, Option("--num-worker", NO_STAGE)] = Field(
        default=0, ge=0, le=4096, description="Number of programs to validate at once; 0: one per CPU core"
    )
    model_name: Annotated[str, Option("--model-name PROVIDER", (*_SAMPLE, Stage.PROMPT, *_LLM))] = Field(
        default="constructive",
        description="Provider: constructive, gemini, openai, local, or your own package.module:function",
    )
    num_core_ops_range: Annotated[Range | None, Option("--num-core-ops-range", _SAMPLE)] = Field(
        default=None, description="Number of core operators in a program, from MIN to MAX"
    )
    num_compound_ops_range: Annotated[Range | None, Option("--num-compound-ops-range", _SAMPLE)] = Field(
        default=None, description="Number of compound operators in a program, from MIN to MAX"
    )
    num_supporting_ops_range: Annotated[Range | None, Option("--num-supporting-ops-range", _SAMPLE)] = Field(
        default=None, description="Number of supporting operators in a program, from MIN to MAX"
    )
    p_value: Annotated[Probability | None, Option("--p-value PROBABILITY", _SAMPLE)] = Field(
        default=None,
        description="Probability to stop each time an operator is added; lower values give more operators",
    )
    temperature: Annotated[
        Annotated[float, Field(ge=0, le=2)] | None, Option("--temperature FLOAT", _SAMPLE)
    ] = Field(default=None, description="Sampling temperature of the LLM, from 0 to 2")
    max_retries: Annotated[int, Option("--max-retries", _SAMPLE)] = Field(
        default=1, ge=0, description="How often to try the same operators again after a candidate fails"
    )
    on_failure: Annotated[Literal["resample", "repair", "drop"], Option("--on-failure", _SAMPLE)] = Field(
        default="resample",
        description="What to do after a failure. resample: ask again from scratch; repair: send the failed"
        " program and its error; drop: nothing",
    )
    yield_floor: Annotated[float, Option("--yield-floor SHARE", NO_STAGE)] = Field(
        default=0.3, ge=0, le=1, description="Raise an alarm if a smaller share of attempts is accepted"
    )
    skip_filters: Annotated[Names, Option("--skip-filter NAME...", (Stage.SAMPLE, Stage.FILTER))] = Field(
        default=(), description="Filter to switch off (repeatable); `synth checks` lists the names"
    )
    output_dir: Annotated[
        Folder, Option("--output-dir FOLDER", (Stage.SAMPLE, Stage.FILTER, Stage.PERSIST))
    ] = Field(default="synth-output", description="Folder of the accepted programs")
    seed: Annotated[int | None, Option("--seed INT", _SAMPLE)] = Field(
        default=None, ge=0, lt=2**63, description="Seed of the run; if not given: a random seed, recorded"
    )
    strategy: Annotated[str, Option("--strategy NAME|FILE", _SAMPLE)] = Field(
        default="balanced", description="How to sample and prompt: the name of a strategy, or a TOML file"
    )
    sampler: Annotated[Sampler | None, Option("--sampler", _SAMPLE)] = Field(
        default=None,
        description="How to draw operators. uniform: at random; coherent: operators that fit together;"
        " coverage: operators, pairs and triples that the folder lacks",
    )
    prompt: Annotated[str | None, Option("--prompt NAME|FILE", _SAMPLE)] = Field(
        default=None, description="Prompt template: a name, or a file of your own"
    )
    batch_size: Annotated[int, Option("--batch-size", NO_STAGE)] = Field(
        default=0, ge=0, description="Number of candidates per task run; 0: chosen from num_total_samples"
    )
    runner: Annotated[Literal["thread", "dask"], Option("--runner", NO_STAGE)] = Field(
        default="thread",
        description="Where validation and synthesis run. thread: on this machine; dask: on Dask workers",
    )
    dask_address: Annotated[Scheduler, Option("--dask-address ADDRESS", NO_STAGE)] = Field(
        default="", description="Address of the Dask scheduler; empty: start a cluster on this machine"
    )
    cache_dir: Annotated[str, Option("--cache-dir FOLDER", NO_STAGE)] = Field(
        default="", description="Folder of cached answers and verdicts; empty: the user's cache folder"
    )
    provider: ProviderSettings = ProviderSettings()
    validation: ValidationSettings = ValidationSettings()
    budget: BudgetSettings = BudgetSettings()

    def resolved(self) -> Settings:
        """The same settings with every open value decided: seed, number of cores, absolute paths.

        A worker on another machine, or a resumed run, then does exactly what this machine would do. Raises
        `UsageError` for a cache folder that cannot be used.
        """
        limit = self.num_total_samples
        if self.num_accepted and "num_total_samples" not in self.model_fields_set:
            limit = _MOST_ATTEMPTS_AN_ACCEPTED * self.num_accepted
        return self.model_copy(
            update={
                "num_total_samples": limit,
                "seed": secrets.randbelow(2**32) if self.seed is None else self.seed,
                "num_worker": self.num_worker or len(os.sched_getaffinity(0)),
                "output_dir": str(Path(self.output_dir).absolute()),
                "cache_dir": str(_cache_folder(self.cache_dir)),
                "strategy": _absolute(self.strategy) if self.strategy.endswith(".toml") else self.strategy,
                "provider": self.provider.model_copy(
                    update={"ca_bundle": _absolute(self.provider.ca_bundle)}
                ),
            }
        )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _cache_folder(given: str) -> Path:
    cache = given or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "synth")
    mend = "name another folder (--cache-dir or SYNTH_CACHE_DIR)"
    if " " in cache:  # Inductor splits its compiler's command at spaces
        raise UsageError(f"cache_dir {cache!r} contains a space; {mend}")
    folder = Path(cache).expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"cache_dir {cache!r} cannot be written to; {mend}")
    return folder
