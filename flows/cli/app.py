"""The `synth` command: parse the command line, call one function, and return the exit code.

A command imports what it needs when it runs, so that `synth --help` answers at once.
"""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from flows.cli.options import OF_A_RUN, OF_THE_POOL, normalise, settings_options
from synth_core import __version__
from synth_core.errors import SynthError, UsageError
from synth_core.settings import Settings

DONE, OUR_FAULT, BAD_INPUT, FELL_SHORT, INTERRUPTED = 0, 1, 2, 3, 130

Json = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Print JSON on stdout"),
]


def _run_option(text: str) -> Parameter:
    return Parameter(name="--run", metavar="ID", show_default=False, help=text)


app = App(
    name="synth",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `run` handles it, and prints the command that resumes
    help="Write synthetic PyTorch programs, check each one, and keep the sound ones with their provenance.",
)


@app.command
@settings_options()
def generate(settings: Settings, *, as_json: Json = False) -> int:
    """Write programs and check them, until the given number is tried.

    With --num-accepted, continue until that number is accepted.
    """
    from flows.cli.generate import generate as run_generate

    return FELL_SHORT if run_generate(settings, as_json=as_json).short else DONE


@app.command
@settings_options(groups=("budget",), only=("output_dir",))
def resume(
    settings: Settings,
    *,
    run_id: Annotated[str, _run_option("Id of the run; default: the newest incomplete run")] = "",
    as_json: Json = False,
) -> int:
    """Continue a run that was interrupted, was killed, or spent its budget.

    Finished work is not done or paid for again. Give a larger budget here if the old one is spent.
    """
    from flows.cli.generate import resume as run_resume

    return FELL_SHORT if run_resume(settings, run_id, as_json=as_json).short else DONE


@app.command
@settings_options(omit=("num_total_samples", *OF_A_RUN, "max_retries", "on_failure"))
def debug(settings: Settings, *, as_json: Json = False) -> int:
    """Make one candidate and show everything about it: operators, prompt, answer, code and verdicts."""
    from flows.cli.debug import debug as run_debug

    return DONE if run_debug(settings, as_json=as_json) else FELL_SHORT


@app.command
@settings_options(omit=OF_A_RUN)
def preview(
    settings: Settings,
    *,
    count: Annotated[int, Parameter(name=("--count", "-n"), help="Number of candidates to try")] = 5,
    as_json: Json = False,
) -> int:
    """Try a few candidates, and estimate the yield, time and cost of the whole run. Writes no program."""
    from flows.cli.preview import preview as run_preview

    if count < 1:
        raise UsageError("--count must be at least 1")
    run_preview(settings, count, as_json=as_json)
    return DONE


@app.command
@settings_options(groups=("validation",), only=("num_worker", "cache_dir"), omit=OF_THE_POOL)
def validate(
    settings: Settings,
    *paths: Annotated[Path, Parameter(help="Python files, or folders; a folder means its own *.py files")],
    as_json: Json = False,
) -> int:
    """Check existing programs, from Synth or from any other source."""
    from flows.cli.validate import judge_files

    return DONE if judge_files(paths, settings, as_json=as_json) else FELL_SHORT


@app.command
def operators(
    *,
    group: Annotated[
        Literal["core", "compound", "supporting", "motif"] | None, Parameter(help="Show only this group")
    ] = None,
    as_json: Json = False,
) -> int:
    """List the operators that programs are made of."""
    from flows.cli.listings import show_operators

    show_operators(group, as_json=as_json)
    return DONE


@app.command
def checks(*, as_json: Json = False) -> int:
    """List all checks, rules and filters, with the option that switches each one off or on."""
    from flows.cli.listings import show_checks

    show_checks(as_json=as_json)
    return DONE


@app.command
@settings_options(groups=(), only=("output_dir",))
def report(
    settings: Settings,
    *,
    run_id: Annotated[
        str, _run_option("Id of the run; default: the newest; `all`: all runs of the folder")
    ] = "",
    as_json: Json = False,
) -> int:
    """Show the result of a run: yield, failures by stage and category, success by operator."""
    from flows.cli.report import report as run_report

    run_report(settings.output_dir, run_id, as_json=as_json)
    return DONE


@app.command
@settings_options(groups=("provider", "validation"), only=("model_name", "output_dir", "cache_dir"))
def check(settings: Settings, *, as_json: Json = False) -> int:
    """Check whether this machine can run Synth, and say what is missing."""
    from flows.cli.check import check as run_check
    from flows.cli.findings import show_findings

    return DONE if show_findings(run_check(settings), as_json=as_json) else OUR_FAULT


@app.command
def up(
    *,
    port: Annotated[
        int | None, Parameter(help="Port of the server, on 127.0.0.1 only [default: 4200]")
    ] = None,
    home: Annotated[
        Path | None, Parameter(metavar="FOLDER", help="Folder of the server's database and logs")
    ] = None,
    gpu: Annotated[
        bool | None,
        Parameter(help="Start one worker of the pool gpu per GPU [default: if this machine has a GPU]"),
    ] = None,
    only_check: Annotated[
        bool,
        Parameter(
            name="--check",
            negative="",
            show_default=False,
            help="Start nothing; check the server, pools and deployments that exist",
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Start a Prefect server with all deployments and workers on this machine. Ctrl-C stops them."""
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


cache = App(name="cache", help="Show cached answers, verdicts and shards, or delete old ones.")
app.command(cache)


@cache.command(name="list")
@settings_options(groups=(), only=("cache_dir", "output_dir"))
def list_cache(settings: Settings, *, as_json: Json = False) -> int:
    """List cached answers by provider and model, the size of cached verdicts, and the size of shards."""
    from flows.cli import cache as caches

    caches.show(settings, as_json=as_json)
    return DONE


@cache.command
@settings_options(groups=(), only=("cache_dir", "output_dir"))
def prune(
    settings: Settings,
    *,
    older_than_days: Annotated[
        float, Parameter(metavar="DAYS", help="Delete what was not used for this many days")
    ] = 30.0,
    model: Annotated[
        str,
        Parameter(metavar="NAME", show_default=False, help="Delete only answers of this model, nothing else"),
    ] = "",
) -> int:
    """Delete cached answers and verdicts that were not used for a while. A deleted answer must be paid again.

    If a folder is named (--output-dir, SYNTH_OUTPUT_DIR or a settings file), delete old shards of its runs,
    too. Shards of a run that can still be resumed are kept.
    """
    from flows.cli import cache as caches

    if not older_than_days >= 0:  # true for nan, too
        raise UsageError(f"--older-than-days must be 0 or more, got {older_than_days:g}")
    caches.prune(settings, older_than_days, model)
    return DONE


contamination = App(
    name="contamination",
    help="Find programs that resemble a benchmark.",
)
app.command(contamination)


@contamination.command
def scan(
    *paths: Annotated[Path, Parameter(help="Files or folders of programs; they are read and never run")],
    compare: Annotated[
        list[Path] | None,
        Parameter(negative="", help="Compare with these files or folders instead of KernelBench"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Compare programs, from Synth or any other source, with the problems of KernelBench."""
    from flows.cli.contamination import scan_folders

    return FELL_SHORT if scan_folders(paths, compare or [], as_json=as_json) else DONE


@app.command
@settings_options(groups=(), only=("output_dir",))
def export(
    settings: Settings,
    *,
    to: Annotated[
        Path, Parameter(metavar="FILE", help="The dataset to write: a .parquet or .jsonl file")
    ] = Path("synth-output.parquet"),
    run_id: Annotated[str, _run_option("Export only the run with this id; default: all runs")] = "",
) -> int:
    """Write all accepted programs of a folder, with their provenance, into one dataset file."""
    from flows.cli.export import export as run_export

    run_export(settings.output_dir, to, run_id)
    return DONE


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(tokens: list[str]) -> int:
    """Run one command line and return its exit code. A failure prints one line; a bug prints a traceback."""
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
        sys.stderr.close()  # the reader is gone, and Python would print a second error at exit
        return DONE
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = f" while writing {error.filename}" if error.filename else ""
            return _complain(f"the disk is full{where}; all programs accepted so far are intact", OUR_FAULT)
        return _admit()
    except Exception:
        return _admit()
    return result if isinstance(result, int) else DONE


def _complain(message: str, code: int) -> int:
    print(f"synth: {message}", file=sys.stderr)
    return code


def _admit() -> int:
    traceback.print_exc()
    return _complain("this is a bug in Synth; please report it with the lines above", OUR_FAULT)
