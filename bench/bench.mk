# The peers side by side; included by the Makefile at the repository's root.
#
#   make bench                                  every row
#   make bench ONLY=plaintext ROUNDS=15         one row (or several: ONLY="tls upload"), longer
#   make bench ONLY="ws-echo ws-echo-64k ws-echo-deflate ws-echo-64k-deflate"
#   make bench SERVERS="tidegate tidegate-reader uvicorn"
#   make bench BENCH_PYTHON=python3.11 BENCH_VENV=.venv-bench-3.11

ONLY ?=
SERVERS ?=
ROUNDS ?= 5
ROUND_SECONDS ?= 1

BENCH_VENV ?= .bench-venv
BENCH_READY := $(BENCH_VENV)/.ready

# The figures are stated for 3.13. A name on PATH is not enough: pyenv's shims exist for Pythons
# that are not chosen.
BENCH_CANDIDATES = python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3) \
	python3.14 python3.12 python3.11 python3
BENCH_USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
BENCH_PYTHON ?= $(shell for name in $(BENCH_CANDIDATES); do \
	if $$name -c '$(BENCH_USABLE)' >/dev/null 2>&1; then echo $$name; break; fi; done)

# uvloop before 0.23 gathers what is written in one turn of the loop into one system call; 0.23
# makes a call of each write, which costs uvicorn three times the CPU on the events row. The
# peers get the better one.
BENCH_UVLOOP ?= uvloop>=0.21,<0.23
BENCH_PEERS := "uvicorn[standard]" granian fastpysgi socketify hypercorn daphne gunicorn \
	gunicorn_h1c uvicorn-worker httptools django fastapi cryptography
BENCH_PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 $(BENCH_VENV)/bin/python -m pip install --quiet

.PHONY: bench bench-tools

bench: $(BENCH_READY) bench-tools ## the peers side by side (ONLY=plaintext ROUNDS=15 SERVERS="a b")
	@$(BENCH_VENV)/bin/python -m bench --only "$(ONLY)" --servers "$(SERVERS)" \
		--rounds $(ROUNDS) --seconds $(ROUND_SECONDS)

# wrk drives HTTP/1.1, h2load (nghttp2-client) HTTP/2. The generator of the WebSocket rows is our
# own: the run compiles it.
bench-tools:
	@for pair in wrk:wrk h2load:nghttp2-client curl:curl cc:gcc; do \
		program=$${pair%%:*}; package=$${pair##*:}; \
		if command -v $$program >/dev/null; then continue; fi; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing $$package"; \
			{ apt-get install -y -qq $$package || \
				{ apt-get update -qq && apt-get install -y -qq $$package; }; } >/dev/null; \
		else \
			echo "$$program is missing; on Debian: apt-get install $$package"; \
		fi; \
	done

# One at a time: a peer without a wheel for this Python must not keep the others out. A server
# that could not be installed is reported by the run as one that did not start.
$(BENCH_READY): pyproject.toml bench/bench.mk
	@test -n "$(BENCH_PYTHON)" || { echo "No Python 3.11 or later with venv was found." \
		"Name one: make bench BENCH_PYTHON=/path/to/python3"; exit 1; }
	@echo "setting up $(BENCH_VENV) with $$($(BENCH_PYTHON) --version)"
	@$(BENCH_PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_PIP) --editable . "$(BENCH_UVLOOP)"
	@for peer in $(BENCH_PEERS); do echo "  $$peer"; \
		$(BENCH_PIP) "$$peer" "$(BENCH_UVLOOP)" || echo "  $$peer could not be installed"; done
	@touch $@
