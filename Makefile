# Every target works on a fresh clone, with nothing but Python >= 3.11 and make: what it needs goes into .venv first.
#   make demo ARGS="--backend opencl"     PYTHON=python3.13 make test     make test ARGS="-k matmul"

# The first Python on the path that is new enough; say PYTHON=... to choose another.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

# Tests run in as many processes, each with one thread for its matrix products, or they would take them from each other.
JOBS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help demo test slow conform oracles plugins bench lint types docs dev size clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.test ## Train a classifier on 1,797 real handwritten digits, in seconds.
	$(BIN)/hal train $(ARGS)

test: $(VENV)/.test ## Run the plain tests.
	$(PYTEST) --dist worksteal -m "not slow" $(ARGS)

slow: $(VENV)/.test ## Run the slow tests.
	$(PYTEST) --dist loadfile -m "slow and not conformance" $(ARGS)

conform: $(VENV)/.test ## Run the whole conformance suite on OpenCL.
	$(PYTEST) --dist worksteal -m conformance tests/backends/test_opencl_conformance.py $(ARGS)

oracles: $(VENV)/.oracles ## Run what compares with torch, plain and slow: its own samples, functions, layers, optimizers.
	$(PYTEST) --dist worksteal -m oracle tests/oracles tests $(ARGS)

plugins: $(VENV)/plugins/.done ## Run the tests of the plugins in plugins/, installed together in one environment.
	$(VENV)/plugins/bin/python -m pytest plugins/onednn/tests plugins/spiking/tests plugins/tests $(ARGS)

bench: $(VENV)/.test ## Measure: time of an op, steps per second, import time, peak memory.
	$(BIN)/python tests/bench/run.py $(ARGS)

lint: $(VENV)/.dev ## Check style, formatting and who imports whom.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(VENV)/.dev ## Check types: mypy is the gate, pyright the second opinion.
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs ## Build the documentation into site/.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dev: $(VENV)/.dev ## Install the tools of a developer, and the hooks that run them before a commit.
	$(BIN)/pre-commit install

size: ## Count lines of Python by folder, and name the files that grew long.
	@find hal nn backends plugins tests -name '*.py' -exec wc -l {} + 2>/dev/null | awk '$$2 != "total" { \
		split($$2, part, "/"); folder = part[1]; if (folder == "backends" || folder == "plugins") folder = folder "/" part[2]; \
		lines[folder] += $$1; files[folder]++; total += $$1; if ($$1 > 400) long = long sprintf("%7d  %s\n", $$1, $$2) } \
		END { for (folder in lines) printf "%7d lines  %4d files  %s\n", lines[folder], files[folder], folder | "sort -k5"; \
		close("sort -k5"); printf "%7d lines in all\n", total; if (long) printf "over 400 lines:\n%s", long }'

clean: ## Remove .venv and all that was built.
	rm -rf $(VENV) build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of extras: made last, so that an install which broke off is begun again,
# and older than pyproject.toml once a dependency or an entry point changes there.
$(VENV)/.test: EXTRAS := test
$(VENV)/.dev: EXTRAS := dev,test
$(VENV)/.docs: EXTRAS := docs,test
$(VENV)/.oracles: EXTRAS := oracles,test
# Its graphs are described, not run: without what they need to be run, it is 12 MB instead of 700.
$(VENV)/.oracles: ALONE := 'nvidia-cudnn-frontend>=1.32,<1.33'
$(VENV)/.test $(VENV)/.dev $(VENV)/.docs $(VENV)/.oracles: pyproject.toml | $(VENV)/bin/python
	@echo "Installing HAL with its extras $(EXTRAS) into $(VENV): once, until pyproject.toml changes."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable ".[$(EXTRAS)]"
	@$(if $(ALONE),$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps $(ALONE) || echo "goes on without $(ALONE)")
	@touch $@

# As strangers install them, and apart: the other tests judge the cpu's own kernels.
$(VENV)/plugins/.done: pyproject.toml $(wildcard plugins/onednn/*/* plugins/spiking/*/*) | $(VENV)/bin/python
	@echo "Installing HAL and the plugins of plugins/ into $(VENV)/plugins."
	@$(BIN)/python -m venv $(VENV)/plugins
	@$(VENV)/plugins/bin/python -m pip install --disable-pip-version-check --quiet --editable ".[test]"
	@$(VENV)/plugins/bin/python -m pip install --disable-pip-version-check --quiet ./plugins/onednn ./plugins/spiking
	@touch $@

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "HAL needs Python 3.11 or newer, and none is on the path; say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "HAL needs Python 3.11 or newer, $(PYTHON) is older; say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
