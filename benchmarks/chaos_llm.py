"""A loopback LLM whose answer depends on the prompt alone. It records what it was asked, and when."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

LATENCY = 0.3
JUST_SENT = 1.0  # seconds; a more recent answer may not be on the client's disk yet when it is killed

PROMPT = "{% block text %}Write a program. OPERATORS: {{ operators | join(', ') }}.{% endblock %}"
STRATEGY = """
p_value = 0.3
temperature = 0.5
num_core_ops_range = [1, 1]
num_compound_ops_range = [0, 0]
num_supporting_ops_range = [2, 4]
operators = ["Linear", "ReLU", "Tanh", "Sigmoid", "GELU", "SiLU", "ELU", "Softplus", "LayerNorm"]
prompt = "PROMPT_FILE"
"""
ARGUMENTS = {"Linear": "16, 16", "LayerNorm": "16"}


class Call(NamedTuple):
    """One request. Times are seconds of the monotonic clock."""

    prompt: str
    began: float
    ended: float


class Llm:
    """An OpenAI-compatible server. `calls` are all requests, answered or not (if the client was gone)."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        llm = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                if len(text := self.rfile.read(length)) < length:
                    return  # the client was killed while it sent the question
                body = json.loads(text)
                data = llm.answer(body["messages"][-1]["content"], body["model"])
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def asked(self) -> Counter[str]:
        """Digest of a prompt -> how often it was asked."""
        return Counter(call.prompt for call in self.calls)

    def at_risk(self, windows: list[tuple[float, float]]) -> int:
        """The number of calls whose answer may have been lost, because something failed in these periods."""
        return sum(
            any(call.began <= until and call.ended + JUST_SENT >= since for since, until in windows)
            for call in self.calls
        )

    def answer(self, prompt: str, model: str) -> bytes:
        began = time.monotonic()
        time.sleep(LATENCY)
        self.calls.append(Call(hashlib.sha256(prompt.encode()).hexdigest(), began, time.monotonic()))
        message = {"role": "assistant", "content": write_program(prompt)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 10, "completion_tokens": 100, "total_tokens": 110}
        fields = {"id": "x", "object": "chat.completion", "created": 0, "model": model}
        return json.dumps({**fields, "choices": [choice], "usage": usage}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def write_program(prompt: str) -> str:
    """A program that applies the prompt's operators one after another."""
    found = re.search(r"OPERATORS: ([^.]*)\.", prompt)
    assert found
    names = found[1].split(", ")
    layers = "\n".join(
        f"        self.layer{i} = nn.{name}({ARGUMENTS.get(name, '')})" for i, name in enumerate(names)
    )
    calls = "\n".join(f"        x = self.layer{i}(x)" for i in range(len(names)))
    return f"""Here it is.
```python
import torch
from torch import nn


class SynthModel_{"_".join(names)}(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

    def forward(self, x):
{calls}
        return x


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {{}}]
```
"""
