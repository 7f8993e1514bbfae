"""Accepted programs as files: flat in output_dir, named after their realised operators, never overwritten."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from synth_core.atomic import sync_folder
from synth_core.errors import EnvironmentFault
from synth_core.program.renaming import rename_class
from synth_core.records import Candidate, Program, Stage, Verdict
from synth_core.store.runs import Run


def persist(candidates: Sequence[Candidate], run: Run) -> list[Candidate]:
    """Write every live candidate's source to `<output_dir>/<name>.py`.

    If another program has the name already, the new program and its class get a suffix: the first eight
    digits of the source's digest. So a repeated call gives the same result.
    Raises `EnvironmentFault` if the disk is full; files written before stay.
    """
    kept = [_persisted(c, run.output_dir) if c.alive and c.program else c for c in candidates]
    sync_folder(run.output_dir)
    return kept


def _persisted(candidate: Candidate, folder: Path) -> Candidate:
    began = time.perf_counter()
    program = candidate.program
    assert program is not None
    if not _place(folder, program):
        name = f"{program.name}_{program.digest[:8]}"
        program = Program.of(name, rename_class(program.source, name))
        if not _place(folder, program):
            raise EnvironmentFault(f"{folder / name}.py has other contents; another program writes there")
    seconds = {**candidate.telemetry.seconds, Stage.PERSIST.value: time.perf_counter() - began}
    telemetry = candidate.telemetry.model_copy(update={"seconds": seconds})
    return candidate.judged(Verdict.ok(Stage.PERSIST), program=program, telemetry=telemetry)


def _place(folder: Path, program: Program) -> bool:
    """True if the file now contains the program. False if the name belongs to another text.

    `os.link` does two things in one atomic step: the file appears with its whole contents, and the call fails
    if the name exists. So two runs may write to one folder.
    """
    path = folder / f"{program.name}.py"
    data = program.source.encode()
    temporary = folder / ".synth" / f".tmp-{os.getpid()}-{secrets.token_hex(4)}.py"
    try:
        if path.exists():
            return path.read_bytes() == data
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return path.read_bytes() == data
    except OSError as error:
        raise EnvironmentFault(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return True
