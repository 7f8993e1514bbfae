"""Whether dispatch uses what a provider allows, what it costs, and what a kill loses.

    python benchmarks/dispatch.py rate            # limit of 600 calls a minute, latency 2 s, 3 minutes
    python benchmarks/dispatch.py rate sliding    # only one way of counting: fixed, sliding or bucket
    python benchmarks/dispatch.py spread          # latencies that vary: how wide it goes, how busy that keeps
    python benchmarks/dispatch.py cpu             # 10,000 calls at zero latency: CPU of our own, memory
    python benchmarks/dispatch.py kill            # kill -9 at ten random moments, resuming each time

`rate`, `spread` and `kill` call a loopback server through the real openai SDK over a real socket.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from loopback import Act, Loopback, Seen, answer, error

from synth_core.prompting import render_prompts
from synth_core.providers.call import Reply, Request
from synth_core.providers.cost_ledger import read_totals
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Candidate, Outcome, Specification, Usage
from synth_core.settings import BudgetSettings, ProviderSettings, Settings

LIMIT, WINDOW, LATENCY, MINUTES = 600, 60.0, 2.0, 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("rate", "spread", "cpu", "kill", "child"))
    parser.add_argument("rest", nargs="*")
    options = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "benchmark")
    commands: dict[str, Callable[..., None]] = {
        "rate": rate,
        "spread": spread,
        "cpu": cpu,
        "kill": kill,
        "child": child,
    }
    commands[options.command](*options.rest)


# --- rate --------------------------------------------------------------------------------------------------


class Limiter:
    """600 calls a minute, counted in one of the three ways that providers count, from the first call on."""

    def __init__(self, kind: str, hint: bool) -> None:
        self.kind, self.hint = kind, hint
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self._recent: collections.deque[float] = collections.deque()
        self._tokens, self._filled = 60.0, 0.0
        self._began = 0.0
        self.called = threading.Event()

    def __call__(self, seen: Seen) -> Act:
        self._began = self._began or time.monotonic()
        self.called.set()
        now = time.monotonic() - self._began
        wait = getattr(self, "_" + self.kind)(now)
        if wait is None:
            self.accepted.append(now)
            return Act(body=answer("openai", "fine"), delay=LATENCY)
        self.refused.append(now)
        headers = {"retry-after": f"{wait:.3f}"} if self.hint else {}
        return error("openai", 429, "rate limit", code="rate_limit_exceeded", headers=headers)

    def _fixed(self, now: float) -> float | None:
        start = now // WINDOW * WINDOW
        used = sum(1 for at in self.accepted if at >= start)
        return None if used < LIMIT else start + WINDOW - now

    def _sliding(self, now: float) -> float | None:
        while self._recent and self._recent[0] <= now - WINDOW:
            self._recent.popleft()
        if len(self._recent) >= LIMIT:
            return self._recent[0] + WINDOW - now
        self._recent.append(now)
        return None

    def _bucket(self, now: float) -> float | None:
        """A bucket that holds six seconds' worth."""
        self._tokens = min(60.0, self._tokens + (now - self._filled) * LIMIT / WINDOW)
        self._filled = now
        if self._tokens < 1:
            return (1 - self._tokens) * WINDOW / LIMIT
        self._tokens -= 1
        return None


def rate(kind: str = "") -> None:
    """All ways of counting at once, or one, each against a dispatcher of its own.

    All at once need a quarter of a core, clients and servers together; a busier machine measures itself.
    """
    asked = candidates("openai", 3000)
    threads = [
        threading.Thread(target=_rate_of, args=(name, hint, asked))
        for name in ([kind] if kind else ["fixed", "sliding", "bucket"])
        for hint in (True, False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _rate_of(kind: str, hint: bool, asked: list[Candidate]) -> None:
    limiter = Limiter(kind, hint)
    with tempfile.TemporaryDirectory() as folder, Loopback(limiter) as server:
        options = ProviderSettings(base_url=server.base_url("openai"), retries=50)
        settings = Settings(model_name="openai", provider=options, cache_dir=folder, output_dir=folder)
        with Dispatcher(settings) as dispatcher:
            work = threading.Thread(target=_swallow, args=(dispatcher, asked))
            work.start()
            limiter.called.wait()
            time.sleep(MINUTES * 60)
            accepted, refused = list(limiter.accepted), list(limiter.refused)
        work.join()
    allowed = LIMIT * MINUTES
    late_calls = sum(1 for at in accepted + refused if at > 20)
    late = sum(1 for at in refused if at > 20)
    print(
        f"{kind:8} {'with' if hint else 'without'} hint: used {len(accepted) / allowed:.1%} of {allowed},"
        f" refused {len(refused)}; after 20 s {late} of {late_calls} = {late / late_calls:.2%}",
        flush=True,
    )


def _swallow(dispatcher: Dispatcher, asked: list[Candidate]) -> None:
    try:
        dispatcher.complete(asked)
    except BaseException as ended:
        if type(ended).__name__ != "CancelledError":
            raise


# --- spread -----------------------------------------------------------------------------------------------

MEDIAN, CALLS = 1.0, 1500


def spread() -> None:
    """Latencies of a lognormal distribution, as of answers of different lengths, that no width changes."""
    asked = candidates("openai", CALLS)
    threads = [threading.Thread(target=_spread_of, args=(sigma, asked)) for sigma in (0.0, 0.5, 0.8, 1.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _spread_of(sigma: float, asked: list[Candidate]) -> None:
    rng = random.Random(1)
    busy, in_flight = 0.0, []

    def behave(seen: Seen) -> Act:
        nonlocal busy
        delay = MEDIAN * rng.lognormvariate(0.0, sigma)
        busy += delay
        in_flight.append(dispatcher.snapshot().in_flight)
        return Act(body=answer("openai", "fine"), delay=delay)

    with tempfile.TemporaryDirectory() as folder, Loopback(behave) as server:
        options = ProviderSettings(base_url=server.base_url("openai"))
        settings = Settings(model_name="openai", provider=options, cache_dir=folder, output_dir=folder)
        with Dispatcher(settings) as dispatcher:
            began = time.monotonic()
            dispatcher.complete(asked)
            seconds = time.monotonic() - began
    print(
        f"sigma {sigma:g}: {max(in_flight)} at once at most, {busy / seconds:.0f} on average, of"
        f" {settings.provider.concurrency} allowed; {CALLS} calls in {seconds:.0f} s",
        flush=True,
    )


# --- cpu ---------------------------------------------------------------------------------------------------


async def instant(request: Request) -> Reply:
    """A provider that takes no time."""
    return Reply(outcome=Outcome.OK, text="fine", usage=Usage(input_tokens=300, output_tokens=500))


def cpu() -> None:
    """CPU seconds of dispatch alone: ledger, budget, limits and cache included, prompts rendered before."""
    sys.modules["dispatch_benchmark"] = sys.modules[__name__]
    name = "dispatch_benchmark:instant"
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            model_name=name,
            cache_dir=folder,
            output_dir=folder,
            budget=BudgetSettings(calls=10**9, tokens=10**12),
        )
        with Dispatcher(settings, run_dir=Path(folder) / "run") as dispatcher:
            for label in ("asked", "from the cache"):
                before, memory = time.process_time(), _memory()
                for first in range(0, 10_000, 250):
                    asked = candidates(name, 250, first=first)
                    rendering = time.process_time()
                    dispatcher.complete(asked)
                    before += rendering - _mark[0]
                spent = time.process_time() - before
                print(
                    f"10,000 calls {label}: {spent / 10:.3f} ms of CPU a call; memory"
                    f" {memory:.0f} -> {_memory():.0f} MiB (peak"
                    f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f})"
                )


_mark = [0.0]


def _memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


# --- kill --------------------------------------------------------------------------------------------------


def kill() -> None:
    """A child asks 600 questions and is killed ten times; the server counts what it is asked twice, and of
    what it was asked before a kill, how much the child had not read by then."""
    with tempfile.TemporaryDirectory() as folder, Loopback(lambda _: Act()) as server:
        server.behave = lambda seen: Act(body=answer("openai", "fine"), delay=random.uniform(0.05, 0.4))
        killed = in_flight = 0
        while killed < 10:
            process = _start_child(folder, server.base_url("openai"))
            already = len(server.seen)
            while len(server.seen) == already and process.poll() is None:
                time.sleep(0.01)
            time.sleep(random.uniform(0.05, 1.0))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(1.0)  # the server comes to know of the end of its connections
            in_flight += sum(1 for seen in server.seen[already:] if not seen.taken)
            killed += 1
        _start_child(folder, server.base_url("openai")).wait()
        asked = collections.defaultdict(list)
        for seen in server.seen:
            asked[seen.prompt].append(seen)
        again = sum(len(requests) - 1 for requests in asked.values())
        read = sum(seen.taken for requests in asked.values() for seen in requests[:-1])
        lost = read_totals(Path(folder) / "run").lost
    print(
        f"killed {killed} times; {len(asked)} questions, {len(server.seen)} requests, {again} asked again,"
        f" {read} of them although their answer was read; in flight at the kills, by the server:"
        f" {in_flight}, by the ledger: {lost}"
    )


def _start_child(folder: str, address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "child", folder, address])


def child(folder: str, address: str) -> None:
    """The process that is killed."""
    options = ProviderSettings(base_url=address, concurrency=16)
    settings = Settings(model_name="openai", provider=options, cache_dir=folder, output_dir=folder)
    with Dispatcher(settings, run_dir=Path(folder) / "run") as dispatcher:
        dispatcher.complete(candidates("openai", 600))


def candidates(provider: str, count: int, *, first: int = 0) -> list[Candidate]:
    """Candidates with prompts that all differ."""
    made = [
        Candidate(
            index=index,
            specification=Specification(
                operators=tuple(_OPERATORS[index // 12**place % 12] for place in range(4)),
                strategy="benchmark",
                seed=index,
                provider=provider,
                prompt="plan",
                temperature=0.5,
            ),
        )
        for index in range(first, first + count)
    ]
    _mark[0] = time.process_time()
    return render_prompts(made)


_OPERATORS = (
    *("Conv2d", "ReLU", "Tanh", "GELU", "SiLU", "Linear"),
    *("Softmax", "LayerNorm", "Sigmoid", "MaxPool2d", "Dropout", "Clamp"),
)

if __name__ == "__main__":
    main()
