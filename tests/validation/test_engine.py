"""The engine as its callers see it: verdicts, limits, survival, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synth_core.errors import EnvironmentFault, UsageError
from synth_core.records import Candidate, Category, Program, Specification, Stage, Tier, Verdict
from synth_core.settings import ValidationSettings
from synth_core.validation.child import WarmChild
from synth_core.validation.engine import Engine

TIMEOUT = 30.0  # other tests may keep the machine busy


def source(forward: str = "return self.linear(torch.relu(x))", head: str = "") -> str:
    return f"import torch\nimport torch.nn as nn\n{head}" + textwrap.dedent(
        f"""
        class SynthModel_ReLU_Linear(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.linear = nn.Linear(width, 5)

            def forward(self, x):
                {forward}


        def get_inputs():
            return [torch.randn(4, 16)]


        def get_init_inputs():
            return [[16], {{}}]
        """
    )


def candidate(text: str, index: int = 0) -> Candidate:
    specification = Specification(
        operators=("ReLU", "Linear"), strategy="s", seed=1, provider="p", prompt="t", temperature=0.0
    )
    named = re.search(r"class (\w+)\(", text)
    program = Program.of(named[1] if named else "SynthModel_ReLU_Linear", text)
    return Candidate(index=index, specification=specification, program=program)


def settings(**changes: object) -> ValidationSettings:
    return ValidationSettings.model_validate(
        {"timeout": TIMEOUT, "memory_mb": 1024, "skip_checks": ("static",), **changes}
    )


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def wait_until_gone(processes: list[int], seconds: float) -> list[int]:
    """Those that still live after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        processes = [p for p in processes if Path(f"/proc/{p}").exists()]
        if not processes:
            break
        time.sleep(0.02)
    return processes


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(settings(), workers=2) as running:
        yield running


def both(engine: Engine, *texts: str) -> list[Candidate]:
    candidates = [candidate(text, i) for i, text in enumerate(texts)]
    return engine.validate_compile(engine.validate_eager(candidates))


def failure(engine: Engine, text: str) -> Verdict:
    verdict = both(engine, text)[0].failure
    assert verdict is not None
    return verdict


def test_a_sound_program_passes_both_stages_under_its_realised_name(engine: Engine) -> None:
    (judged,) = both(engine, source().replace("SynthModel_ReLU_Linear", "SynthModel_Mine"))
    assert judged.alive, judged.failure
    assert [v.stage for v in judged.verdicts] == [Stage.VALIDATE_EAGER, Stage.VALIDATE_COMPILE]
    assert all(v.tier is engine.tier and v.torch == engine.probe()["torch"] for v in judged.verdicts)
    assert judged.program
    assert judged.graph
    assert judged.program.name == "SynthModel_ReLU_Linear"
    assert "class SynthModel_ReLU_Linear(" in judged.program.source
    assert judged.graph.operators == ("ReLU", "Linear")
    assert set(judged.telemetry.seconds) == {"validate-eager", "validate-compile"}


def test_the_name_of_the_class_decides_nothing(engine: Engine) -> None:
    """The file that is kept is judged on the inputs that the candidate was accepted with."""
    names = ("SynthModel_One", "SynthModel_Two")
    texts = [source().replace("SynthModel_ReLU_Linear", name) for name in names]
    other = source(head="# another program, with inputs of its own\n")
    found = [judged.verdicts[-1].measured for judged in both(engine, *texts, other)]
    assert found[0]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_order_is_kept_and_the_dead_pass_through(engine: Engine) -> None:
    dead = candidate(source(), 1).judged(Verdict.fail(Stage.EXTRACT, Category.NO_CODE, "none"))
    alive = [candidate(source(f"return self.linear(torch.relu(x + {i}))"), i) for i in (2, 3)]
    judged = engine.validate_eager([alive[0], dead, alive[1]])
    assert judged[1] is dead
    assert [c.index for c in judged] == [2, 1, 3]


def test_many_threads_share_one_engine(engine: Engine) -> None:
    """Their C++ is compiled together, and each gets the answer to its own program."""
    verdicts: dict[int, Candidate] = {}

    def one(i: int) -> None:
        forward = "return self.linear(torch.relu(x + 0.5))" if i % 2 else "return self.linear(x)[:, :0]"
        verdicts[i] = both(engine, source(forward + f" * {i + 1}.5"))[0]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [verdicts[i].alive for i in range(4)] == [False, True, False, True], verdicts


@pytest.mark.parametrize(
    ("forward", "category"),
    [
        ("import ctypes; ctypes.string_at(0)", Category.CRASH),
        ("import os; os._exit(0)", Category.CRASH),
        ("import os; os.abort()", Category.CRASH),
        ("import os; os.fork()", Category.SANDBOX_VIOLATION),
        ("import socket; socket.socket()", Category.SANDBOX_VIOLATION),
        ("return [torch.ones(2**27) for _ in range(4)]", Category.OUT_OF_MEMORY),
        ("import os; [os.write(1, bytes(65536)) for _ in range(10**6)]", Category.SANDBOX_VIOLATION),
    ],
)
def test_a_bad_end_is_a_verdict(engine: Engine, forward: str, category: Category) -> None:
    verdict = failure(engine, source(forward))
    assert verdict.category is category, verdict
    assert verdict.detail


def test_over_its_time_it_is_gone_within_a_second() -> None:
    hang = "import time; [time.sleep(9) for _ in range(999)]"
    others = zygotes()
    with Engine(settings(timeout=3.0, skip_checks=("static", "deterministic")), workers=1) as short:
        if short.tier is not Tier.A:
            pytest.skip("finds the zygote by its pid namespace")
        (zygote,) = zygotes() - others
        before = set(descendants(zygote))
        answer: list[Verdict] = []
        thread = threading.Thread(target=lambda: answer.append(failure(short, source(hang))))
        started = time.monotonic()
        thread.start()
        while not (programs := [p for p in descendants(zygote) if p not in before]):
            assert time.monotonic() - started < TIMEOUT
            time.sleep(0.01)
        forked = time.monotonic()
        left = wait_until_gone(programs, 3.0 + 1.0 - (time.monotonic() - forked))
        thread.join()
    assert not left
    assert answer[0].category is Category.TIMEOUT


@pytest.mark.slow
def test_a_busy_machine_changes_no_verdict() -> None:
    """Limits are CPU time: beside six busy processes the same program is accepted, and the same is not."""
    spin = "for _ in range(10**9): pass\n                return self.linear(x)"
    texts = [source(), source(spin)]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    try:
        with Engine(settings(timeout=4.0), workers=2) as engine:
            good, slow = both(engine, *texts)
    finally:
        for one in busy:
            one.kill()
            one.wait()
    assert good.alive, good.failure
    assert slow.failure
    assert slow.failure.category is Category.TIMEOUT


def zygotes() -> set[int]:
    """Our descendants that are pid 1 of a namespace of their own."""
    found = set()
    for process in descendants(os.getpid()):
        status = Path(f"/proc/{process}/status").read_text()
        if status.partition("NSpid:")[2].split("\n")[0].split()[1:] == ["1"]:
            found.add(process)
    return found


@pytest.mark.slow
def test_programs_survive_the_death_of_the_zygote(engine: Engine) -> None:
    if engine.tier is not Tier.A:
        pytest.skip("finds the zygote by its pid namespace")
    engine.validate_eager([candidate(source())])
    answers: list[Candidate] = []
    slow = "import time; time.sleep(2); return self.linear(torch.relu(x))"
    thread = threading.Thread(target=lambda: answers.extend(engine.validate_eager([candidate(source(slow))])))
    thread.start()
    time.sleep(1.0)
    for process in zygotes():
        os.kill(process, signal.SIGKILL)
    thread.join()
    assert answers[0].verdicts[0].category is not Category.CRASH
    assert both(engine, source())[0].alive


@pytest.mark.parametrize("heir", [True, False])
def test_a_zygote_killed_in_the_middle_of_an_answer_keeps_nobody_waiting(tmp_path: Path, heir: bool) -> None:
    child = WarmChild("tests.helpers.torn", {"cache": str(tmp_path), "heir": heir})
    try:
        answers = [child.submit({"stage": "validate-eager"}) for _ in range(3)]
        for answer in answers:
            if heir:
                assert answer.result(TIMEOUT)["judgement"]["passed"]
            else:
                with pytest.raises(EnvironmentFault, match="no heir"):
                    answer.result(TIMEOUT)
    finally:
        child.close()


def test_zygotes_that_all_die_are_our_fault_and_no_programs(tmp_path: Path) -> None:
    child = WarmChild("tests.helpers.torn", {"cache": str(tmp_path), "frail": True})
    try:
        answers = [child.submit({"stage": "validate-eager"}) for _ in range(12)]
        ends = [answer.exception(TIMEOUT) or answer.result()["judgement"]["category"] for answer in answers]
    finally:
        child.close()
    assert ends[:4] == [Category.CRASH] * 4  # each was tried twice
    assert all("died 10 times in a row: a fault of ours" in str(end) for end in ends[4:])


def test_closing_answers_those_who_wait_before_it_waits_itself(tmp_path: Path) -> None:
    """A second Ctrl-C ends the wait for a zygote that is still busy; nobody else may be left waiting then."""
    child = WarmChild("tests.helpers.torn", {"cache": str(tmp_path), "deaf": True})
    answer = child.submit({"stage": "validate-eager"})
    closing = threading.Thread(target=child.close)
    closing.start()
    try:
        with pytest.raises(EnvironmentFault, match="closed"):
            answer.result(TIMEOUT)
        assert closing.is_alive()
    finally:
        os.kill(int((tmp_path / "lived").read_text()), signal.SIGKILL)
        closing.join()


@pytest.mark.slow
def test_where_no_zygote_follows_a_dead_one_nobody_waits_for_ever(
    tmp_path: Path, warm_up: Callable[[Path], Path]
) -> None:
    cache = warm_up(tmp_path / "cache")
    slow = "import time; time.sleep(60); return self.linear(x)"
    others = zygotes()
    with Engine(settings(), 2, str(cache)) as engine, ThreadPoolExecutor(4) as threads:
        if engine.tier is not Tier.A:
            pytest.skip("finds the zygote by its pid namespace")
        asked = [
            threads.submit(engine.validate_eager, [candidate(source(f"{slow} * {i + 1}")) for i in range(3)])
            for _ in range(3)
        ]
        time.sleep(1.0)
        (cache / "headers").rename(tmp_path / "gone")
        (cache / "headers").write_text("in the way")
        for process in zygotes() - others:
            os.kill(process, signal.SIGKILL)
        for one in asked:
            with pytest.raises(EnvironmentFault):
                one.result(TIMEOUT)
        with pytest.raises(EnvironmentFault):
            engine.validate_eager([candidate(source())])


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.3, 2.0])
def test_an_engine_can_be_closed_while_it_starts(seconds: float) -> None:
    closing = Engine(settings(), workers=1)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(closing.validate_eager, [candidate(source("return self.linear(x) / 3"))])
        time.sleep(seconds)
        closing.close()
        with pytest.raises(EnvironmentFault, match=r"closed|did not start"):
            asked.result(TIMEOUT)
    with pytest.raises(EnvironmentFault, match="closed"):
        closing.probe()


def test_verdicts_are_remembered_but_not_those_of_a_busy_hour() -> None:
    texts = [source(), source("return 1"), source("import os; os._exit(3)")]
    texts = [f"{text}\n# {uuid.uuid4()}\n" for text in texts]
    cache = (
        Path(tempfile.gettempdir()) / f"synth-cache-{os.getuid()}"
    )  # where precompiled headers lie already
    with Engine(settings(), 2, str(cache)) as one:
        first = one.validate_eager([candidate(t, i) for i, t in enumerate(texts)])
        second = one.validate_eager([candidate(t, i) for i, t in enumerate(texts)])
    assert [c.verdicts for c in first] == [c.verdicts for c in second]
    assert [c.graph for c in first] == [c.graph for c in second]
    assert [bool(c.telemetry.from_cache) for c in second] == [True, True, False]
    assert [c.content_digest() for c in first] == [c.content_digest() for c in second]


def test_unknown_checks_and_missing_sandboxes_are_the_users_to_mend() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        Engine(settings(skip_checks=("nonsense",)), workers=1)
    with (
        Engine(settings(), workers=1, strongest=Tier.C) as bare,
        pytest.raises(UsageError, match="unsandboxed"),
    ):
        bare.probe()


def test_the_static_gate_needs_no_process(tmp_path: Path) -> None:
    with Engine(ValidationSettings(), workers=1, cache_dir=str(tmp_path)) as idle:
        verdict = failure(idle, "class")
        assert verdict.category is Category.SYNTAX_ERROR
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("tier", [Tier.B, Tier.C])
def test_weaker_tiers_judge_alike_and_say_so(tier: Tier) -> None:
    with Engine(settings(allow_unsandboxed=True), workers=2, strongest=tier) as weaker:
        good, hungry, lost = both(
            weaker,
            source(),
            source("return [torch.ones(2**27) for _ in range(4)]"),
            source("raise KeyError('x')"),
        )
    assert good.alive, good.failure
    assert {v.tier for v in good.verdicts} == {tier}
    assert hungry.failure
    assert hungry.failure.category is Category.OUT_OF_MEMORY
    assert lost.failure
    assert lost.failure.category is Category.EXCEPTION


@pytest.mark.slow
def test_nothing_outlives_a_killed_owner(tmp_path: Path, warm_up: Callable[[Path], Path]) -> None:
    """SIGKILL to the process that holds the engine: no process stays, and the next one sweeps its folder."""
    script = """
        import json, os, sys, time
        from synth_core.settings import ValidationSettings
        from synth_core.validation.engine import Engine
        engine = Engine(ValidationSettings(), workers=1)
        print(json.dumps(engine.probe()), flush=True)
        time.sleep(600)
    """
    warm_up(tmp_path / f"synth-cache-{os.getuid()}")
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=environment
    )
    assert owner.stdout
    with owner.stdout:
        json.loads(owner.stdout.readline())
    below = descendants(owner.pid)
    assert len(below) >= 2
    owner.kill()
    owner.wait()
    assert not wait_until_gone(below, 5.0)
    (left,) = tmp_path.glob(f"synth-{os.getuid()}-*")
    assert not [path for path in left.rglob("*") if path.is_file()]
