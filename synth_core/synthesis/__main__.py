"""The child process: it reads one JSON object per line and answers with one per line, until the input ends.

In:  {"id": any, "operators": [names], "seed": int}
Out: {"id": same, "source": text, "plan": text, "lines": n, "glue": n, "chain": bool}
In:  {"id": any, "source": text, "sets": int, "seed": int}
Out: {"id": same, and the fields of `records.GpuSizes`}
Or:  {"id": same, "error": one line} if no program was found, or if it has no such sizes.

Any other exception is our own bug: it ends the process with a traceback on stderr.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict
from typing import Any

import torch

from synth_core.errors import UsageError
from synth_core.synthesis.build import build
from synth_core.synthesis.draft import CannotWrite
from synth_core.synthesis.enlarge import enlarge


def main() -> None:
    """Answer requests from stdin until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # so that output of a library does not mix with the answers
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch's warnings would reach the terminal, even for dropped attempts
    with torch.no_grad():
        for row in sys.stdin:
            answers.write(json.dumps(answer(json.loads(row))) + "\n")
            answers.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request; see the module's docstring for both formats."""
    identity = request.pop("id")
    try:
        if "source" in request:
            return {"id": identity, **enlarge(**request).model_dump()}
        return {"id": identity, **asdict(build(**request))}
    except (CannotWrite, UsageError, ValueError) as error:
        return {"id": identity, "error": str(error)}


if __name__ == "__main__":
    main()
