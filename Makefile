# Every target sets itself up in $(VENV) from nothing but Python, make and a C compiler.
#
#   make serve              the demo page at http://127.0.0.1:8000      (PORT=9000 for another port)
#   make test ARGS="-k sse" some of the tests
#   make test PYTHON=python3.13 VENV=.venv-3.13    on another Python, beside the first

VENV ?= .venv
PORT ?= 8000
ARGS ?=
FUZZ_SECONDS ?= 60

# The first of these that runs, is new enough and can make an environment. A name on PATH is not
# enough: pyenv's shims exist for Pythons that are not chosen, and Debian ships venv apart.
CANDIDATES := python3.13 python3.12 python3.11 python3 python3.14 python
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
find-python = for name in $(CANDIDATES); do \
	if $$name -c '$(USABLE)' >/dev/null 2>&1; then echo $$name; break; fi; done
# Searched when first needed, and only once: a shim that is not chosen takes half a second to say so.
ifndef PYTHON
PYTHON = $(eval PYTHON := $$(shell $$(find-python)))$(PYTHON)
endif

PY := $(VENV)/bin/python
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(PY) -m pip install -qq

# Stamps: made once, and again when pyproject.toml changes.
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools

# `pip install --group` needs pip 25.1 and Python 3.11 brings 23.2, so the groups are read here.
GROUPS_OF_PYPROJECT := import tomllib; \
	groups = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; \
	print(*groups["test"], *groups["check"], sep="\n")

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test test-roads check soak fuzz clean python

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(INSTALLED) ## the demo page at http://127.0.0.1:8000
	@exec $(PY) -m tidegate examples.demo:app --port $(PORT)

test: $(TOOLS) ## all the tests; prints at the end what was skipped here
	@$(PY) -m tests.support.programs
	@echo "testing on $$($(PY) --version)"
	@$(PY) -m pytest -n auto --dist worksteal $(ARGS)

# The roads a byte can take: `make test` has been on the poller and loop chosen by default.
test-roads: $(TOOLS) ## the wire and behaviour tests on both pollers and both loops
	@for road in "epoll asyncio" "reader asyncio" "epoll uvloop" "reader uvloop"; do \
		set -- $$road; echo "testing the $$1 poller on $$2"; \
		TIDEGATE_TEST_POLLER=$$1 TIDEGATE_TEST_LOOP=$$2 \
			$(PY) -m pytest -n auto --dist worksteal $(wildcard tests/wire tests/behaviour) $(ARGS) \
			|| exit 1; done

check: $(TOOLS) ## lint, formatting, types
	@echo "ruff check";  $(PY) -m ruff check --quiet .
	@echo "ruff format"; $(PY) -m ruff format --quiet --check . \
		|| { $(PY) -m ruff format --check .; exit 1; }
	@echo "mypy --strict"; $(PY) -m mypy --strict
	@echo "sizes and layers"; $(PY) -m pytest tests/test_house.py

soak: $(TOOLS) ## the long abuse runs, with their figures (ARGS=... goes to pytest)
	@$(PY) -m tests.support.programs
	@$(PY) -m pytest -m soak -s $(ARGS)

fuzz: $(TOOLS) ## the codecs against damaged input, a minute each (FUZZ_SECONDS=600), and new examples for the tests
	@$(PIP) atheris 2>/dev/null || echo "atheris does not install here: going on without coverage"
	@$(PY) -m tests.fuzz.http1 $(FUZZ_SECONDS)
	@$(PY) -m tests.fuzz.websocket $(FUZZ_SECONDS)
	@$(PY) -m tests.fuzz.http2 $(FUZZ_SECONDS)
	@$(PY) -m pytest -n auto --hypothesis-profile=search -m hypothesis $(ARGS)

clean: ## remove everything that was built, environments too
	rm -rf .venv .venv-* .bench-venv build dist .mypy_cache .ruff_cache .hypothesis .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

python: # the Python these targets would use; .ci/run asks
	@echo $(PYTHON)

-include bench/bench.mk

$(PY):
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later with venv was found." \
		"Install one (Debian: apt-get install python3 python3-venv), or name it:" \
		"make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c '$(USABLE)' || { echo "$(PYTHON) cannot be used:" \
		"Tidegate needs Python 3.11 or later with the venv module."; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml | $(PY)
	@echo "installing Tidegate into $(VENV)"
	@$(PIP) --editable .
	@touch $@

$(TOOLS): $(INSTALLED)
	@echo "installing what the tests and checks need"
	@$(PY) -c '$(GROUPS_OF_PYPROJECT)' > $(VENV)/tools.txt
	@$(PIP) --requirement $(VENV)/tools.txt
	@touch $@
