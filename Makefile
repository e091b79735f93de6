# Everything needs Python >= 3.11, make and a package index; each target makes what it needs.
#
#   make demo     count the words of a novel with map_reduce, on this machine
#   make demo-aws the same on AWS Lambda and S3, as an emulator on this machine has them
#   make test     the tests
#   make check    format, lint, types, the documents' site
#   make bench    speed against the targets and the peers (BENCH="--quick" BENCH_ENGINE="--mb 64" for
#                 a short run, BENCH_ENGINE="--large" for what outgrows a worker)
#   make soak     simulated histories under faults until told to stop (SOAK="--start N --jobs 2")
#   make clean    remove environments and caches

PYTHON ?= python3
BENCH ?=
SOAK ?= --start $(shell date +%s)000 --jobs 2
BENCH_ENGINE ?=
PEERS := lithops ray distributed duckdb numpy polars

VENV := .venv
BENCH_VENV := .venv-bench
EMULATOR_VENV := .venv-emulator
LAMBDA_VENV := .venv-lambda
PIP := -m pip --disable-pip-version-check --quiet

# Workers are young processes: they start sooner with compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-aws test check bench soak clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.run
	@$(VENV)/bin/python examples/word_count.py

demo-aws: $(VENV)/.test $(EMULATOR_VENV)/.ready
	@$(VENV)/bin/python -m tests.demo_aws

test: $(VENV)/.test $(EMULATOR_VENV)/.ready $(LAMBDA_VENV)/.ready
	$(VENV)/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

bench: $(BENCH_VENV)/.bench
	$(BENCH_VENV)/bin/python -m benchmarks.foundation $(BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks.engine $(BENCH_ENGINE)

soak: $(VENV)/.test
	$(VENV)/bin/python -m tests.simulation $(SOAK)

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(EMULATOR_VENV) $(EMULATOR_VENV).lock $(LAMBDA_VENV) $(LAMBDA_VENV).lock build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, three stages: what a run, the tests and the checks need.
# A stamp is newer than the files that say what to install.
$(VENV)/.run: pyproject.toml setup.cfg
	$(call make-venv,$(VENV))
	$(VENV)/bin/python $(PIP) install -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(VENV)/bin/python $(PIP) install -e '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(VENV)/bin/python $(PIP) install -e '.[dev]'
	@touch $@

# The AWS emulator of the tests; nothing of lambdamr may be installed beside it.
$(EMULATOR_VENV)/.ready: tests/emulator.txt $(VENV)/.test
	$(VENV)/bin/python -m tests.emulator

# What a function of AWS Lambda sees: its runtime client and the layer.
$(LAMBDA_VENV)/.ready: tests/lambda.txt layer/requirements.txt $(VENV)/.test
	$(VENV)/bin/python -m tests.runtime_api
	@touch $@

# Each peer by itself: one that has no build for this Python is left out of the table.
$(BENCH_VENV)/.bench: pyproject.toml setup.cfg
	$(call make-venv,$(BENCH_VENV))
	$(BENCH_VENV)/bin/python $(PIP) install -e .
	@for peer in $(PEERS); do \
	    echo "installing $$peer"; \
	    $(BENCH_VENV)/bin/python $(PIP) install $$peer || echo "$$peer cannot be installed here: left out"; \
	done
	@touch $@

define make-venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
    echo "lambdamr needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11 ..." >&2; \
    exit 1; }
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || { \
    echo "$(PYTHON) could not make an environment; on Debian: apt-get install python3-venv" >&2; \
    rm -rf $(1); exit 1; }
endef
