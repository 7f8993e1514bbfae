"""Accepted programs as files: flat in output_dir, named after what they realise, never overwritten."""

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
    """Write every alive candidate's program as `<output_dir>/<name>.py`, byte for byte its source.

    A name that another program holds is left to it: the newcomer, class included, takes the first eight
    digits of its own digest as a further part of the name, so that the result is the same whenever and
    however often it is asked for. Raises `EnvironmentFault` (disk full); what was written before stays.
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
            raise EnvironmentFault(f"{folder / name}.py holds another text; something else writes there")
    seconds = {**candidate.telemetry.seconds, Stage.PERSIST.value: time.perf_counter() - began}
    telemetry = candidate.telemetry.model_copy(update={"seconds": seconds})
    return candidate.judged(Verdict.ok(Stage.PERSIST), program=program, telemetry=telemetry)


def _place(folder: Path, program: Program) -> bool:
    """True if the file holds the program now; False if another text holds the name.

    A hard link makes the file appear whole and fails where the name is taken, in one step: two runs may
    write into one folder.
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
