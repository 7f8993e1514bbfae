"""The `synth` command: parse, call, print, and answer with the right exit code.

Start-up stays light: a command imports what it needs when it runs, so that `synth --help` answers at once.
"""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from flows.options import normalise, settings_options
from synth_core import __version__
from synth_core.errors import SynthError
from synth_core.settings import Settings

DONE, OUR_FAULT, BAD_INPUT, FELL_SHORT, INTERRUPTED = 0, 1, 2, 3, 130

Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Print machine-readable output on stdout only")
]
OutputDir = Annotated[Path, Parameter(help="Folder of a run's accepted programs")]

app = App(
    name="synth",
    version=__version__,
    help="Write synthetic PyTorch programs, prove each one sound, keep what is left with its provenance.",
)


@app.command
@settings_options()
def generate(settings: Settings, *, as_json: Json = False) -> int:
    """Write programs until the asked number of samples is tried (or of programs is accepted)."""
    from flows.generate import generate as run

    return run(settings, as_json=as_json)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(tokens: list[str]) -> int:
    """Run one command line; return its exit code. Every failure but our own is a single line."""
    try:
        result: Any = app(
            normalise(tokens), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        return _complain(str(error), BAD_INPUT)
    except SynthError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader is gone; Python would complain once more at exit
        return DONE
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = f" while writing {error.filename}" if error.filename else ""
            return _complain(f"the disk is full{where}; everything accepted so far is intact", OUR_FAULT)
        traceback.print_exc()
        return OUR_FAULT
    except Exception:
        traceback.print_exc()
        return _complain("this is a fault of Synth itself, please report it with the lines above", OUR_FAULT)
    return result if isinstance(result, int) else DONE


def _complain(message: str, code: int) -> int:
    print(f"synth: {message}", file=sys.stderr)
    return code
