"""A zygote that says of itself how it dies: run in place of synth_core.validation.supervisor.zygote.

Its first life ends in the middle of an answer. Its second answers what it is asked, or, where the
configuration has `"heir": false`, does not start. With `"deaf": true` it answers nothing and does not end,
with `"frail": true` it dies of whatever it is asked, in each of its lives.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    configuration = json.loads(sys.stdin.readline())
    lived = Path(configuration["cache"]) / "lived"
    if configuration.get("deaf"):
        lived.write_text(str(os.getpid()))
        say(json.dumps({"ready": {"tier": "A"}}) + "\n")
        time.sleep(600)
    if lived.exists() and not configuration["heir"]:
        say(json.dumps({"failed": "no heir", "usage": False}) + "\n")
        return
    say(json.dumps({"ready": {"tier": "A"}}) + "\n")
    for line in sys.stdin:
        number = json.loads(line)["id"]
        say(json.dumps({"id": number, "started": True}) + "\n")
        if configuration.get("frail"):
            sys.exit("a fault of ours")
        answer = json.dumps({"id": number, "judgement": {"passed": True}}) + "\n"
        if not lived.exists():
            lived.touch()
            say(answer[:20])
            os._exit(1)
        say(answer)


def say(text: str) -> None:
    os.write(0, text.encode())  # the socket to its owner


if __name__ == "__main__":
    main()
