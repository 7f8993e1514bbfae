"""The child process: one JSON object a line in, one a line out, until the input ends.

In:  {"id": any, "operators": [names], "seed": int}
Out: {"id": same, "source": text, "plan": text, "lines": n, "glue": n, "chain": bool}
     or {"id": same, "error": one line} where no program was found.
An exception is our own fault: it ends the process with a traceback on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

import torch

from synth_core.errors import UsageError
from synth_core.synthesis.build import build
from synth_core.synthesis.draft import CannotWrite


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # whatever a library prints must not mix with the answers
    torch.set_num_threads(1)
    with torch.no_grad():
        for row in sys.stdin:
            answers.write(json.dumps(answer(json.loads(row))) + "\n")
            answers.flush()


def answer(request: dict[str, object]) -> dict[str, object]:
    operators, seed = request["operators"], request["seed"]
    assert isinstance(operators, list)
    assert isinstance(seed, int)
    try:
        return {"id": request["id"], **asdict(build(operators, seed))}
    except (CannotWrite, UsageError) as error:
        return {"id": request["id"], "error": str(error)}


if __name__ == "__main__":
    main()
