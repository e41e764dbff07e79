# Two commands do all the set-up on a fresh machine with Python >= 3.11:
#   make demo    install, fetch the local model, ingest the shipped samples, search them
#   make test    install the tools for development, run the whole test suite
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# processes that test: one a core, four at most; most tests wait for a program or a server
JOBS   ?= logical
export ERA_HOME ?= $(CURDIR)/.era

.PHONY: help demo test test-long torture lint format models browser monitor clean
.DEFAULT_GOAL := help

help:  ## what can be made here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "venv is missing: apt-get install python3-venv (or make PYTHON=...)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

models: $(VENV)/.base
	@$(BIN)/era models fetch

demo: $(VENV)/.base models  ## ingest the shipped samples with the local model, and search them
	$(BIN)/era ingest era_ingest/samples
	$(BIN)/era search "how to decide when little is known"
	@echo "Look around: $(BIN)/era dev (the UI), $(BIN)/era search TEXT, $(BIN)/era status, $(BIN)/era --help"

browser:
	@sh tools/ensure_browser.sh $(BIN)/python

monitor:
	@sh tools/ensure_prometheus.sh $(VENV)/prometheus

test: $(VENV)/.dev models browser monitor  ## the whole test suite (short forms)
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-long: $(VENV)/.dev models browser monitor  ## the long forms too (hours)
	$(BIN)/python -m pytest

torture: $(VENV)/.dev  ## the long forms of the fault tests (hours; ERA_TORTURE_FACTOR, ERA_TORTURE_SEED)
	$(BIN)/python -m pytest era_ingest_tests/faults -m slow

lint: $(VENV)/.dev  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and all state of the demo (its database too)
	-test -x $(BIN)/era && $(BIN)/era db stop
	rm -rf $(VENV) .era data
