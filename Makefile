# Each target works on a fresh clone: it first makes .venv, and makes it again only when
# pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Written last, so an interrupted setup is not taken for a finished one.
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup fmt check test test-slow demo paper bench docs

help:  ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## Make .venv with everything; PYTHON=python3.12 chooses the interpreter.

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check -e '.[test,dev]' -c constraints.txt
	@touch $@

fmt: $(STAMP)  ## Format the code and apply the safe fixes.
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

check: $(STAMP)  ## Check format, lint and types.
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright --pythonpath $(PY)

test: $(STAMP)  ## Run the tests, but for the slow ones and those for a GPU.
	$(PY) -m pytest -m "not slow and not gpu"

test-slow: $(STAMP)  ## Run the slow tests.
	$(PY) -m pytest -m slow

demo: $(STAMP)  ## Run the demo.
	$(VENV)/bin/relocal demo

paper: $(STAMP)  ## The source paper's experiment on 7-Scenes; LICENCE=accept, GOOGLENET=FILE.
	$(VENV)/bin/relocal paper $(if $(filter accept,$(LICENCE)),--accept-licence) \
	  $(if $(GOOGLENET),--googlenet '$(GOOGLENET)')

bench: $(STAMP)  ## Run the scripts in bench/, one after the other.
	$(PY) -m pip install --disable-pip-version-check -q -e '.[bench]' -c constraints.txt
	@set -e; none=yes; for script in bench/*.py; do \
	  [ -e "$$script" ] || continue; none=no; echo "== $$script"; $(PY) "$$script"; \
	done; [ $$none = no ] || echo "bench/ holds no script yet"

docs: $(STAMP)  ## Build the documentation's site, check its links and run its examples.
	$(PY) -m pip install --disable-pip-version-check -q -e '.[docs]' -c constraints.txt
	$(PY) -m sphinx -E -W --keep-going -n -q -c docs . build/docs
	@echo "the site: build/docs/index.html"
	$(PY) -m pytest -m docs
