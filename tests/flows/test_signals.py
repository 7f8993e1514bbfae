"""Ctrl-C, pressed once or in a hurry."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from flows.prefect_server.signals import sigterm_as_interrupt


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_does_not_cut_the_cleaning_up_short(second: signal.Signals) -> None:
    cleaned = []
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(second)
            cleaned.append("all")

    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        work()
    assert cleaned == ["all"]
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_library_makes_of_an_interrupt_is_one_again() -> None:
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("lost in between") from None

    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        work()


def test_cleaning_up_that_never_ends_can_be_ended() -> None:
    program = """
import signal, time
from flows.prefect_server import signals
signals._PATIENCE = 0.2
with signals.sigterm_as_interrupt():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        while True:
            time.sleep(0.1)
            signal.raise_signal(signal.SIGINT)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 130
