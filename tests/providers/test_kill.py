"""Kill -9 at random moments: what was received is never asked for again. The server counts what it is asked,
the ledger what was in flight (benchmarks/dispatch.py lets the server count that, too)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from loopback import Act, Loopback, Seen, answer

from synth_core.providers.cost_ledger import read_totals

_CHILD = """
import sys
sys.path.insert(0, {here!r})
from asking import candidates
from pathlib import Path
from synth_core.providers.dispatch import Dispatcher
from synth_core.settings import Settings

provider = dict(base_url={address!r}, concurrency=8, retries=2)
settings = Settings(model_name="openai", provider=provider, cache_dir={folder!r}, output_dir={folder!r})
with Dispatcher(settings, run_dir=Path({folder!r}) / "run") as dispatcher:
    dispatcher.complete(candidates("openai", 160))
"""


def test_no_received_answer_is_asked_for_again(tmp_path: Path) -> None:
    rng = random.Random(1)

    def behave(_: Seen) -> Act:
        return Act(body=answer("openai", "fine"), delay=rng.uniform(0.05, 0.3))

    with Loopback(behave) as server:
        code = _CHILD.format(
            here=str(Path(__file__).parents[1] / "helpers"),
            address=server.base_url("openai"),
            folder=str(tmp_path),
        )
        for _ in range(3):
            process = subprocess.Popen([sys.executable, "-c", code])
            before = len(server.seen)
            while len(server.seen) < before + rng.randint(5, 40) and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    asked = Counter((seen.body["seed"], seen.prompt) for seen in server.seen)
    again = sum(asked.values()) - len(asked)
    totals = read_totals(tmp_path / "run")
    assert len(asked) == 160
    # The ledger notes a call's end only after its answer is kept, so it knows what was in flight.
    assert again <= totals.lost <= 3 * 8
    assert totals.calls == totals.lost + totals.outcomes["ok"]
