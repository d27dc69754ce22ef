# `make demo` and `make test` do all the set-up they need; a machine with python3, venv and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test lint types tests faults faults-quick bench bench-quick bench-peers clean

help: ## Say what can be made.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(INSTALLED) ## Run a node, three Alices and Bob in every mode.
	@$(BIN)/python examples/demo.py

test: lint types tests ## Run lint, types and tests.

lint: $(INSTALLED) ## Check style.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED) ## Check types.
	$(BIN)/mypy

tests: $(INSTALLED) ## Run the tests.
	$(BIN)/python -m pytest -n 4

faults: $(INSTALLED) ## Kill, freeze, fill and cut off, and count the outcomes; twenty minutes.
	@$(BIN)/python -m faults

faults-quick: $(INSTALLED) ## The same with smaller numbers; three minutes.
	@$(BIN)/python -m faults --quick

bench: $(VENV)/.bench ## Measure beside bare slim-bindings, and how cost grows; half an hour.
	@$(BIN)/python -m benchmarks

bench-quick: $(INSTALLED) ## Measure beside bare slim-bindings; two minutes.
	@$(BIN)/python -m benchmarks --quick

bench-peers: $(INSTALLED) ## Measure beside other systems, as far as they are installed.
	@$(BIN)/python -m benchmarks --peers

clean: ## Remove what was installed and cached.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
