# setup: .venv with everything. run, demo, test, lint, bench, format stand on it.
#   make test            as root also the tests against real servers; CI=true leaves nothing out
#   make test-long       the tests that take long: many examples, crashes for minutes, gigabytes
#   make chaos SECONDS=3600   the daemon in all the trouble that there is, for so long
#   make PYTHON=...      another interpreter, 3.11 or newer

PYTHON   ?= python3
COVERAGE ?= 90
VENV     := .venv
BIN      := $(VENV)/bin
STAMP    := $(VENV)/.installed

export COVERAGE

.PHONY: setup run demo test test-long test-python lint bench format chaos

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" VENV="$(VENV)" scripts/setup
	@touch $@

run: setup
	@$(BIN)/mailrider run

demo: setup
	@$(BIN)/mailrider lab demo

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter

format: setup
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

test: lint
	@BIN="$(BIN)" scripts/test

# The tests that take many seconds, or that find more the longer they run.
test-long: setup
	@BIN="$(BIN)" scripts/test-long

SECONDS ?= 120

chaos: setup
	@MAILRIDER_CHAOS_SECONDS=$(SECONDS) $(BIN)/pytest -q tests/crash/test_chaos.py

# The unit tests on another Python, such as Debian's own: make test-python PYTHON=/usr/bin/python3 (TESTS: some of them)
test-python: setup
	@PYTHON="$(PYTHON)" BIN="$(BIN)" scripts/test-python $(TESTS)

bench: setup
	@if [ "$$(id -u)" = 0 ]; then scripts/debian-bench; else echo "make bench: not root: the real mail systems are left out"; fi
	@$(BIN)/python -m bench
