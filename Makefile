# Every target makes what it needs: a machine with Python 3.11 or newer (with venv), git and make is enough.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
WORKERS ?= auto
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all torture mutants check format docs bench bench-peers soak clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/installed  ## the main job on real input, with two kills on the way
	$(BIN)/dalsegno demo

test: $(VENV)/installed  ## the whole suite, but for the torture by signals
	$(BIN)/pytest -n $(WORKERS)

test-all:  ## the whole suite on every CPython from 3.11 up that is found
	@.ci/test-all

torture: $(VENV)/installed  ## real workers under kills, full disks and failing system calls, for minutes
	TORTURE_ROUNDS=$${TORTURE_ROUNDS:-80} $(BIN)/pytest -q -s tests/torture

mutants: $(VENV)/installed  ## plant each known bug in a copy of the tree, and see the tests find it
	$(BIN)/python -m tests.mutants

check: $(VENV)/installed  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict -p dalsegno
	$(BIN)/mypy tests
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(VENV)/installed  ## write the code the way `check` wants it
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: $(VENV)/installed  ## the site, into build/site
	$(BIN)/python -m mkdocs build --quiet --strict --clean

bench: $(VENV)/installed  ## the benchmark, each figure beside its yardstick
	$(BIN)/python benchmarks/bench.py

bench-peers: $(VENV)/installed  ## the same work on dalsegno, DBOS, dura and absurd, each installed for it
	$(BIN)/python benchmarks/peers.py

soak: $(VENV)/installed  ## a simulated day, then MINUTES=60 for real: does anything grow?
	$(BIN)/python benchmarks/soak.py --simulated-day
	$(BIN)/python benchmarks/soak.py --real $${MINUTES:-60}

clean:  ## remove environments, builds and caches
	rm -rf .venv .venv-* build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with the venv module was found; try: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
