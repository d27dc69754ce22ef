# `make demo` and `make test` do all the set-up they need; a machine with python3, venv and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test lint types tests clean

help: ## Say what can be made.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

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

clean: ## Remove what was installed and cached.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
