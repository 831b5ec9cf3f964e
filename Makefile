# Every target makes .venv by itself when it is missing: a fresh clone needs python3 with venv, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
FUZZ_STAMP := $(VENV)/.installed-fuzz

# What `make fuzz` gives each target: so many inputs, or so many seconds if that is less; 0 seconds is no bound, and
# with seed 0 the mutations are others each time.
RUNS ?= 1000000
SECONDS ?= 0
SEED ?= 0

# What `make simulate` plays: so many seeds from the first one on, in so many processes.
SEEDS ?= 10000
FIRST ?= 0
JOBS ?= 1

# `make faults` goes on until so many were killed and for MINUTES at least; `make soak` goes on for MINUTES, or 30.
KILLS ?= 500
MINUTES ?=

.DEFAULT_GOAL := help
.PHONY: help install venv check test test-docker test-host simulate demo bench fuzz faults soak clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install qulo with its tools into it

venv: install

# The stamp, not the directory: an install that broke off half way is done again.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

$(FUZZ_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]' || \
	    echo "no Atheris for this Python: fuzzing with the plain mutator"
	touch $@

check: $(STAMP) ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/qulo/test_layering.py

test: $(STAMP) ## every test; the functional ones in docker if an engine answers, else on this host
	$(BIN)/python -m pytest -q

test-docker: $(STAMP) ## the functional tests in containers (tests/functional/engine.sh up starts an engine)
	QULO_FT_ENVIRONMENT=docker $(BIN)/python -m pytest -q tests/functional

test-host: $(STAMP) ## the functional tests on this host, in temporary directories, without root
	QULO_FT_ENVIRONMENT=host $(BIN)/python -m pytest -q tests/functional

simulate: $(STAMP) ## play whole sites in simulated time; SEEDS=100000 JOBS=2
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) --jobs $(JOBS)

demo: $(STAMP) ## start daemons, pass messages, show what happens
	$(BIN)/python examples/demo.py

bench: $(BENCH_STAMP) ## measure, beside NATS on the same machine
	$(BIN)/python -m benchmarks

fuzz: $(FUZZ_STAMP) ## feed every decoder with garbage; RUNS=1000000 inputs each, or SECONDS=
	$(BIN)/python -m tests.fuzz --runs $(RUNS) --seconds $(SECONDS) --seed $(SEED)

faults: $(STAMP) ## break things until KILLS=500 processes were killed, and see what is lost; all of it as root only
	QULO_FAULTS=1 $(BIN)/python -m pytest -q tests/faults
	$(BIN)/python -m tests.faults --kills $(KILLS) --minutes $(or $(MINUTES),0) --seed $(SEED)

soak: $(STAMP) ## the same for MINUTES=30, a fault a minute, looking at memory, files and the WAL
	$(BIN)/python -m tests.faults --soak $(or $(MINUTES),30) --seed $(SEED)

clean: ## remove everything that was made, .venv too
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
