# `make demo` and `make test` set up all they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types tests explore bench peers clean

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	rm -rf demo
	$(BIN)/sc init demo --demo
	$(BIN)/sc import demo/sample/bars --tz America/New_York --label open --config demo/sc.toml
	$(BIN)/sc import demo/sample/corrections --tz America/New_York --label open --config demo/sc.toml
	$(BIN)/sc replay --from 2018-11-02 --to 2018-11-23 --config demo/sc.toml
	$(BIN)/sc report --config demo/sc.toml

test: lint types tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

tests: $(INSTALLED)
	$(BIN)/python -m pytest -n auto

explore: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --hypothesis-profile explore tests/property

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# An environment of their own: NautilusTrader needs pandas below 3.
$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet --editable '.[peers]'
	touch $@

peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m benchmarks.peers

clean:
	rm -rf $(VENV) $(PEERS) demo
