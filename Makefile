# Two commands for a fresh machine with Python 3.10 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out

.PHONY: demo test

demo: $(VENV)/demo.stamp
	$(VENV)/bin/realrag demo --out $(OUT)

test: $(VENV)/test.stamp
	$(VENV)/bin/pytest

$(VENV)/demo.stamp: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -e .
	touch $@

$(VENV)/test.stamp: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -e ".[test]"
	touch $@
