# `make` lists the commands. A fresh machine with Python 3.10 or newer needs two: `make demo` and `make test`.
PYTHON ?= python3
# One worker per core, with one thread each. A file stays with one worker, so that no fixture is built twice.
PYTEST = $(VENV)/bin/pytest -n auto --dist loadfile --no-loadscope-reorder
VENV ?= .venv
OUT ?= demo-out

.PHONY: help demo test test-fast fuzz lint format

help: ## list these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1	\2/' | expand -t 18

demo: $(VENV)/demo.stamp ## install, index the shipped photos, search them, paint without and with them
	$(VENV)/bin/realrag demo --out $(OUT)

test: $(VENV)/test.stamp ## install, run all tests
	$(PYTEST)

test-fast: $(VENV)/test.stamp ## install, run the tests that take at most a third of a second
	$(PYTEST) -m "not slow and not comfyui"

fuzz: $(VENV)/test.stamp ## install, give mutants of every kind of file to its reader, for a minute each at most
	$(VENV)/bin/python tests/attacks/attack.py --count 100000 --seconds 60 --seed $${SEED:-0}

lint: $(VENV)/dev.stamp ## check rules, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/dev.stamp ## fix what ruff can fix, then format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/demo.stamp: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -e .
	touch $@

$(VENV)/test.stamp: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -e ".[test]"
	touch $@

$(VENV)/dev.stamp: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -e ".[dev]"
	touch $@
