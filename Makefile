# `make test` and `make demo` work on a fresh machine with nothing but Python 3.11 or newer: they make .venv themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := tools/constraints.txt
ADAPTERS_STAMP := $(VENV)/.adapters-installed
ADAPTERS_CONSTRAINTS := tools/constraints-adapters.txt
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: help venv demo test check test-adapters proof bench clean

help:
	@echo "make demo    train, kill with SIGKILL, resume, compare bit by bit"
	@echo "make test    format, lint, types, floors, tests: what CI runs (make check is the same)"
	@echo "make test-adapters   the tests with Lightning, transformers and other large libraries"
	@echo "make proof   the slow tests: crash sweeps and other proofs"
	@echo "make bench   measure against peers and against the machine"
	@echo "make venv    only make .venv"
	@echo "make clean   remove what was built; .venv stays"

venv: $(STAMP)

# An existing .venv is brought up to date, never thrown away.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ckptfmt needs Python 3.11 or newer; try make PYTHON=python3.11")'
	@test -x $(BIN)/python || { echo "making $(VENV) (once; takes a few minutes)"; $(PYTHON) -m venv $(VENV); }
	$(PIP_INSTALL) "$$(grep '^torch==' $(CONSTRAINTS))"
	$(PIP_INSTALL) setuptools
	$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python tools/demo/kill_and_resume.py

test check: $(STAMP)
	@$(BIN)/python tools/check.py

# Installed on top of what `make test` has.
$(ADAPTERS_STAMP): $(STAMP) $(ADAPTERS_CONSTRAINTS)
	$(PIP_INSTALL) --constraint $(ADAPTERS_CONSTRAINTS) --no-build-isolation --editable '.[dev,adapters]'
	@touch $@

test-adapters: $(ADAPTERS_STAMP)
	@$(BIN)/python -m pytest -n 2 tests/adapters

proof: $(STAMP)
	@$(BIN)/python -m pytest -n 2 -m slow

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.run

clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
