# Each target makes what it needs in .venv first; a second run goes straight to work.
# Needed on the machine: make, and Python 3.11 or newer with venv and pip. Another Python: make test PYTHON=python3.13

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Every distribution of this repository besides the core, and the directories that hold tests.
SIBLINGS := $(patsubst %/pyproject.toml,%,$(wildcard contract_tests/pyproject.toml adapters/*/pyproject.toml))
TESTS    := $(wildcard tests contract_tests/tests adapters/*/tests)
TYPED    := $(wildcard src contract_tests/src adapters/*/src)
# Each directory of tests by itself: their helper modules have the same names.
SCRIPTS  := $(filter-out %/__pycache__,$(patsubst %/,%,$(wildcard tests/*/))) $(filter-out tests,$(TESTS)) bench

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo check static emulators test docs bench clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    the order system of the tutorials, in several processes, on the embedded broker'
	@echo 'make check   lint, types and the core tests: within a minute'
	@echo 'make test    everything there is to test'
	@echo 'make emulators  what make test installs for it, in environments of their own'
	@echo 'make docs    the documentation site, in docs/_build/html'
	@echo 'make bench   speed, beside other libraries'
	@echo 'make clean   remove what the other targets made'

demo: $(VENV)/.core
	$(BIN)/ceb demo

static: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED) $(wildcard tests/*.py)
	@set -e; for each in $(SCRIPTS); do MYPYPATH=$$each:tests/portable $(BIN)/mypy --explicit-package-bases $$each; done

# Whoever waits for an answer does not wait for brokers, processes and pages: `make test` has them.
CORE := $(addprefix tests/,event config core portable testing)

check: static
	$(BIN)/pytest -q -n auto $(CORE)

# Emulators are optional: what cannot be had here is said, and its cases are not run.
emulators: $(VENV)/.dev
	@mkdir -p .emulators
	@$(BIN)/python -m cloudevents_bridge_contract.emulators install

# Half of the time these wait, for brokers and for leases. More than one to a core, and leases of a second run out.
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)

test: $(VENV)/.dev emulators
	$(BIN)/pytest -q -n $(WORKERS) $(TESTS)

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

bench: $(VENV)/.bench
	$(BIN)/python bench/codec.py
	$(BIN)/python bench/compare.py
	$(BIN)/python bench/startup.py

clean:
	rm -rf $(VENV) .emulators build dist docs/_build ceb-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: what is installed, and since which state of the pyproject files.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)' || { \
	  echo 'This needs Python 3.11 or newer; $(PYTHON) is not one. Name another: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# Dependency groups need pip 25.1, which is newer than what a Python of 2023 brings along.
$(VENV)/.pip: $(VENV)/.made
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.dev: $(VENV)/.core $(VENV)/.pip pyproject.toml $(SIBLINGS:%=%/pyproject.toml)
	$(BIN)/python -m pip install --quiet --editable . $(SIBLINGS:%=--editable %) --group lint --group test
	@# Built from source: where there is no compiler, the tests of that emulator say that they were not run, and why.
	@$(BIN)/python -m pip install --quiet --editable 'contract_tests[servicebus]' || \
	  echo 'python-qpid-proton cannot be built here: the Service Bus emulator will not run'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev pyproject.toml
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

$(VENV)/.bench: $(VENV)/.core $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@
