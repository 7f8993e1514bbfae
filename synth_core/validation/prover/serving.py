"""A prover's loop: take cases from the supervisor, and write each judgement into the file that came with it.

A message is a line of JSON, a list with one object for each case, and four files for each: the judgement's,
the engine's question, and the two that the program's process has written. The answer is the number of a case,
one byte, as soon as its judgement is written.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch

from synth_core.records import Category, Stage
from synth_core.validation.ends import Judgement, failure
from synth_core.validation.evidence import Evidence, Observation
from synth_core.validation.sandbox.files import contents

Request = dict[str, Any]
Case = tuple[Request, list[Evidence]]
Eager = Callable[[Request, list[Evidence]], Judgement]
Compiled = Callable[[Sequence[Case]], Iterator[tuple[int, Judgement]]]

_FILES_EACH: Final = 4
_MOST_FILES: Final = 64
_MAX_QUESTION: Final = 2**24
_MAX_JUDGEMENT: Final = 32 * 2**20


def serve(channel: socket.socket, eager: Eager, compiled: Compiled) -> None:
    """Until the channel closes. eager, compiled: prove one case, or several at once, of either stage."""
    while True:
        line, files, _, _ = socket.recv_fds(channel, 2**16, _MOST_FILES)
        if not line:
            return
        cases = json.loads(line)
        groups = [files[at : at + _FILES_EACH] for at in range(0, len(files), _FILES_EACH)]
        try:
            for number, judgement in _judged(cases, groups, eager, compiled):
                _write(groups[number][0], judgement)
                channel.sendall(bytes([number]))
        finally:
            for file in files:
                os.close(file)
        torch._dynamo.reset()
        gc.collect()


def _judged(
    heads: Sequence[dict[str, Any]], groups: Sequence[Sequence[int]], eager: Eager, compiled: Compiled
) -> Iterator[tuple[int, Judgement]]:
    """The number and the judgement of each case. What goes wrong with one is a judgement on that one."""
    readable: dict[int, Case] = {}
    for number, (head, files) in enumerate(zip(heads, groups, strict=True)):
        try:
            case = _read(head, files)
            if head["stage"] == Stage.VALIDATE_COMPILE:
                readable[number] = case
                continue
            yield number, eager(*case)
        except Exception as error:
            yield number, _failed(error)
    if readable:
        numbers = list(readable)
        for position, judgement in compiled(list(readable.values())):
            yield numbers[position], judgement


def _read(head: dict[str, Any], files: Sequence[int]) -> Case:
    request = json.loads(contents(files[1], _MAX_QUESTION)) | {"draw_seed": head["seed"]}
    evidences = [_evidence(file) for file in files[2:]]
    if "repeated" in request:
        evidences.append(Evidence(Observation(exit_code=0), True, {}, {"digests": request["repeated"]}))
    return request, evidences


def _evidence(file: int) -> Evidence:
    size = os.fstat(file).st_size
    data = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_COPY)) if size else bytearray()
    return Evidence.read(data, Observation(exit_code=0))


def _write(file: int, judgement: Judgement) -> None:
    data = json.dumps(judgement).encode()
    if len(data) > _MAX_JUDGEMENT:
        data = json.dumps(
            failure(Category.CRASH, "its graph is too large to be kept", check="prover")
        ).encode()
    at = 0
    while at < len(data):
        at += os.pwrite(file, data[at:], at)


def _failed(error: Exception) -> Judgement:
    traceback.print_exc()
    return failure(
        Category.CRASH, f"the prover failed on it: {type(error).__name__}: {error}", check="prover"
    )
