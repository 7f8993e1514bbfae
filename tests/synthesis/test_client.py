"""The client of the child process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synth_core.program.constants import with_constants
from synth_core.providers.constructive import Synthesizer, WrittenProgram


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[Synthesizer]:
    os.environ["OPENAI_API_KEY"] = "not-for-children"
    made = Synthesizer(2)
    yield made
    made.close()
    del os.environ["OPENAI_API_KEY"]


def child_pids() -> list[int]:
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [
        pid
        for pid in map(int, children)
        if b"synth_core.synthesis" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_same_text_from_any_child_in_any_order(synthesizer: Synthesizer) -> None:
    asked = [(["Linear", "GELU"], 1), (["Conv2d", "ReLU"], 2), (["LSTM", "LayerNorm"], 3)] * 2
    with ThreadPoolExecutor(4) as threads:
        written = list(threads.map(lambda one: synthesizer.write(*one), asked))
    assert written[:3] == written[3:]
    assert all(isinstance(one, WrittenProgram) and one.source and one.plan for one in written)


def test_what_torch_warns_of_reaches_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    made = Synthesizer(1)
    try:
        for seed in range(12):
            made.write(["Conv2d", "InstanceNorm2d", "Flatten", "InstanceNorm1d", "Linear"], seed)
    finally:
        made.close()
    assert capfd.readouterr().err == ""


def test_a_dead_child_is_replaced(synthesizer: Synthesizer) -> None:
    before = synthesizer.write(["Linear", "ReLU"], 4)
    for pid in child_pids():
        os.kill(pid, signal.SIGKILL)
    assert synthesizer.write(["Linear", "ReLU"], 4) == before


def test_children_hold_no_key(synthesizer: Synthesizer) -> None:
    synthesizer.write(["Linear"], 0)
    assert child_pids()
    for pid in child_pids():
        assert b"API_KEY" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_what_cannot_be_written_is_one_line(synthesizer: Synthesizer) -> None:
    refused = synthesizer.write(["Conv9d"], 0)
    assert isinstance(refused, str)
    assert "\n" not in refused


def test_gpu_sizes(synthesizer: Synthesizer) -> None:
    written = synthesizer.write(["Linear", "GELU"], 1)
    assert isinstance(written, WrittenProgram)
    sizes = synthesizer.enlarge(written.source)
    assert not isinstance(sizes, str)
    assert with_constants(written.source, sizes.constants) != written.source
    assert isinstance(synthesizer.enlarge("x = 1"), str)
