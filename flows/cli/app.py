"""The `synth` command: parse, call, print, and answer with the right exit code.

Start-up stays light: a command imports what it needs when it runs, so that `synth --help` answers at once.
"""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from flows.cli.options import normalise, settings_options
from synth_core import __version__
from synth_core.errors import SynthError, UsageError
from synth_core.settings import Settings

DONE, OUR_FAULT, BAD_INPUT, FELL_SHORT, INTERRUPTED = 0, 1, 2, 3, 130

Json = Annotated[
    bool,
    Parameter(
        name="--json", negative="", show_default=False, help="Print machine-readable output on stdout only"
    ),
]


def _run_option(text: str) -> Parameter:
    return Parameter(name="--run", show_default=False, help=text)


app = App(
    name="synth",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `run` answers it, with the command that goes on
    help="Write synthetic PyTorch programs, prove each one sound, keep what is left with its provenance.",
)


@app.command
@settings_options()
def generate(settings: Settings, *, as_json: Json = False) -> int:
    """Write programs until the asked number is tried or, with --num-accepted, accepted."""
    from flows.cli.generate import generate as run_generate

    return FELL_SHORT if run_generate(settings, as_json=as_json).short else DONE


@app.command
@settings_options(groups=("budget",), only=("output_dir",))
def resume(
    settings: Settings,
    *,
    run_id: Annotated[str, _run_option("Id of the run; empty: the newest that did not complete")] = "",
    as_json: Json = False,
) -> int:
    """Go on with a run that was interrupted or killed, or ended by a budget, which may be raised here; only
    what is missing is done and paid for."""
    from flows.cli.generate import resume as run_resume

    return FELL_SHORT if run_resume(settings, run_id, as_json=as_json).short else DONE


@app.command
@settings_options(omit=("num_total_samples", "num_accepted", "batch_size", "output_dir"))
def debug(settings: Settings, *, as_json: Json = False) -> int:
    """Make one candidate and show all of it: operators, prompt, answer, code, each verdict."""
    from flows.cli.debug import debug as run_debug

    return DONE if run_debug(settings, as_json=as_json) else FELL_SHORT


@app.command
@settings_options(omit=("num_accepted", "batch_size", "output_dir", "runner", "dask_address"))
def preview(
    settings: Settings,
    *,
    count: Annotated[int, Parameter(name=("--count", "-n"), help="Candidates to try")] = 5,
    as_json: Json = False,
) -> int:
    """Try a few candidates and estimate yield, time and cost of the whole run; writes nothing."""
    from flows.cli.preview import preview as run_preview

    if count < 1:
        raise UsageError("--count must be at least 1")
    run_preview(settings, count, as_json=as_json)
    return DONE


@app.command
@settings_options(groups=("validation",), only=("num_worker", "cache_dir"))
def validate(
    settings: Settings,
    *paths: Annotated[Path, Parameter(help="Files, or folders whose *.py lie flat in them")],
    as_json: Json = False,
) -> int:
    """Prove files sound that exist already, from here or from anywhere."""
    from flows.cli.validate import judge_files

    return DONE if judge_files(paths, settings, as_json=as_json) else FELL_SHORT


@app.command
def operators(
    *,
    group: Annotated[
        Literal["core", "compound", "supporting", "motif"] | None, Parameter(help="Only this group")
    ] = None,
    as_json: Json = False,
) -> int:
    """List the catalog: what programs are made of."""
    from flows.cli.listings import show_operators

    show_operators(group, as_json=as_json)
    return DONE


@app.command
def checks(*, as_json: Json = False) -> int:
    """List what is proved of a program: checks, rules and filters, with the option that takes each name."""
    from flows.cli.listings import show_checks

    show_checks(as_json=as_json)
    return DONE


@app.command
@settings_options(groups=(), only=("output_dir",))
def report(
    settings: Settings,
    *,
    run_id: Annotated[str, _run_option("Id of the run; empty: the newest; `all`: all of the folder")] = "",
    as_json: Json = False,
) -> int:
    """Show how a run went: yield, failures by stage and category, success by operator."""
    from flows.cli.report import report as run_report

    run_report(settings.output_dir, run_id, as_json=as_json)
    return DONE


@app.command
@settings_options(groups=("provider", "validation"), only=("model_name", "output_dir", "cache_dir"))
def check(settings: Settings, *, as_json: Json = False) -> int:
    """Say whether this machine can do the work, and what is amiss where it cannot."""
    from flows.cli.check import check as run_check
    from flows.cli.findings import show_findings

    return DONE if show_findings(run_check(settings), as_json=as_json) else OUR_FAULT


@app.command
def up(
    *,
    port: Annotated[
        int | None, Parameter(help="Port of the server, on 127.0.0.1 only; default: 4200")
    ] = None,
    home: Annotated[Path | None, Parameter(help="Folder of its database and logs")] = None,
    gpu: Annotated[
        bool | None, Parameter(help="Start workers of the pool gpu, one a GPU; default: if there is a GPU")
    ] = None,
    only_check: Annotated[
        bool, Parameter(name="--check", negative="", help="Start nothing; say what is amiss with a set-up")
    ] = False,
    as_json: Json = False,
) -> int:
    """Start a Prefect server with all deployments and workers on this machine; Ctrl-C stops it."""
    from flows.cli.findings import show_findings
    from flows.prefect_server import up as set_up

    if port is not None and not 1 <= port <= 65535:
        raise UsageError(f"--port must be between 1 and 65535, got {port}")
    if only_check:
        from flows.cli.check_setup import up_check

        findings = up_check(set_up.api_of(port, home), gpu=gpu)
        return DONE if show_findings(findings, as_json=as_json) else OUR_FAULT
    set_up.up(port=port or set_up.DEFAULT_PORT, home=home, gpu=gpu)
    return DONE


cache = App(name="cache", help="What is kept to save work, and how to make room.")
app.command(cache)


@cache.command(name="list")
@settings_options(groups=(), only=("cache_dir", "output_dir"))
def list_cache(settings: Settings, *, as_json: Json = False) -> int:
    """List kept answers by provider and model, and the size of the verdicts and of the folder's shards."""
    from flows.cli import cache as kept

    kept.show(settings, as_json=as_json)
    return DONE


@cache.command
@settings_options(groups=(), only=("cache_dir", "output_dir"))
def prune(
    settings: Settings,
    *,
    older_than_days: Annotated[float, Parameter(help="Least age of what is forgotten, in days")] = 30.0,
    model: Annotated[str, Parameter(help="Forget answers of this model only; all else stays")] = "",
) -> int:
    """Forget what has not been of use for a while; what is asked again is paid again.

    Where a folder is named (--output-dir, or SYNTH_OUTPUT_DIR and the like), also the shards of its runs, but
    for those that can still be resumed.
    """
    from flows.cli import cache as kept

    if not older_than_days >= 0:  # nan is not, either
        raise UsageError(f"--older-than-days must be 0 or more, got {older_than_days:g}")
    kept.prune(settings, older_than_days, model)
    return DONE


contamination = App(name="contamination", help="Compare programs with a benchmark they must not resemble.")
app.command(contamination)


@contamination.command
def scan(
    *paths: Annotated[Path, Parameter(help="Files or folders of programs; none of them is run")],
    compare: Annotated[
        list[Path] | None,
        Parameter(negative="", help="Files or folders of your own held-out programs, instead of KernelBench"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Look through programs, ours or anyone's, for what is like a KernelBench problem."""
    from flows.cli.contamination import scan_folders

    return FELL_SHORT if scan_folders(paths, compare or [], as_json=as_json) else DONE


@app.command
@settings_options(groups=(), only=("output_dir",))
def export(
    settings: Settings,
    *,
    to: Annotated[Path, Parameter(help="The dataset to write: a .parquet or a .jsonl file")] = Path(
        "synth-output.parquet"
    ),
    run_id: Annotated[str, _run_option("Only this run; empty: all")] = "",
) -> int:
    """Write all accepted programs of a folder into one dataset file, with where each came from."""
    from flows.cli.export import export as run_export

    run_export(settings.output_dir, to, run_id)
    return DONE


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(tokens: list[str]) -> int:
    """Run one command line and return its exit code. Every failure but our own is a single line."""
    try:
        result: Any = app(
            normalise(tokens), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        return _complain(" ".join(str(error).split()), BAD_INPUT)
    except SynthError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt as interrupt:
        return _complain(str(interrupt) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader is gone; Python would complain once more at exit
        return DONE
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = f" while writing {error.filename}" if error.filename else ""
            return _complain(f"the disk is full{where}; everything accepted so far is intact", OUR_FAULT)
        return _admit()
    except Exception:
        return _admit()
    return result if isinstance(result, int) else DONE


def _complain(message: str, code: int) -> int:
    print(f"synth: {message}", file=sys.stderr)
    return code


def _admit() -> int:
    traceback.print_exc()
    return _complain("this is a fault of Synth itself; please report it with the lines above", OUR_FAULT)
