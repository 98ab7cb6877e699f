# Every target sets up what it needs and skips what is there already.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
JOBS ?= 2

.PHONY: help demo up test test-long check fix bench bench-peers openapi lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/runtime ## strangers compute a picture, a cheat is caught, the others are paid
	@$(BIN)/gstd demo $(ARGS)

up: .venv/runtime ## start the whole platform on this machine
	@$(BIN)/gstd up $(ARGS)

test: .venv/dev .venv/bin/hledger ## run all tests
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-long: .venv/dev .venv/bin/hledger ## run all tests, the random ones at ten times the size
	@GSTD_TEST_SCALE=10 $(BIN)/python -m pytest -n $(JOBS) --timeout 1200 $(ARGS)

check: .venv/dev ## format, lint, types, import rules
	@echo "format" && $(BIN)/ruff format --check --quiet .
	@echo "lint" && $(BIN)/ruff check --quiet .
	@echo "types" && $(BIN)/mypy
	@echo "imports" && $(BIN)/lint-imports --no-logo

fix: .venv/dev ## format the code and mend what the linter can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

bench: .venv/dev ## measure: statements, ledger, tasks per second, the queue's latency, the start
	@$(MAKE) --no-print-directory bench-peers || echo "measuring without the peers" >&2
	@$(BIN)/python -m benchmarks.run $(ARGS)

bench-peers: .venv-peers/done ## install the task queues that the measurements compare with

openapi: .venv/dev ## write the OpenAPI snapshot that the contract test compares with
	@$(BIN)/python -m gstd.api.schema > tests/contract/openapi.json

lock: .venv/dev ## resolve the dependencies anew
	@$(PIP) install uv
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --no-header pyproject.toml --group build -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --no-header pyproject.toml --group build --group dev \
		-o requirements-dev.lock

clean: ## remove what the targets made
	@rm -rf .venv .venv-peers build dist out .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null || { \
		echo "GSTD needs Python 3.11 or newer with venv. On Debian or Ubuntu:"; \
		echo "    apt-get install python3 python3-venv"; exit 1; }
	@echo "making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv

.venv/runtime: requirements.lock pyproject.toml | .venv/bin/python
	@echo "installing what gstd needs"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: requirements-dev.lock .venv/runtime
	@echo "installing what its tests need"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

# Does the sums of the ledger's tests again. Where it is not installed, Debian's package is unpacked
# without root, with lists and caches of its own and without the hooks of the machine's apt.
NO_HLEDGER = echo "The tests need hledger and cannot fetch it here. Install it" \
	"(apt-get install hledger, or brew install hledger) and run make again." >&2; exit 1

define FETCH_HLEDGER
set -euo pipefail
rm -rf .venv/hledger
mkdir -p .venv/hledger/fetch/{lists,cache/archives}/partial .venv/hledger/lib
cd .venv/hledger/fetch
cat >apt.conf <<CONF
Dir::State::lists "$$PWD/lists";
Dir::Cache "$$PWD/cache";
Debug::NoLocking "true";
APT::Sandbox::User "root";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
download() { apt-get -qq -c apt.conf download "$$@" >/dev/null; }
unpack() { for deb in *.deb; do dpkg-deb -x "$$deb" root; done; }
apt-get -qq -c apt.conf update
download hledger
unpack
# The few libraries it needs are nearly always there.
if ! root/usr/bin/hledger --version >/dev/null 2>&1; then
    download $$(dpkg-deb -f hledger_*.deb Depends | tr , '\n' | awk '$$1 != "libc6" {print $$1}')
    unpack
    find root -name 'lib*.so.*' -exec cp -a -t ../lib {} +
fi
mv root/usr/bin/hledger ../hledger
cd ..
rm -rf fetch
cat >../bin/hledger.new <<'SCRIPT'
#!/bin/sh
here="$${0%/*}/../hledger"
LD_LIBRARY_PATH="$$here/lib" exec "$$here/hledger" "$$@"
SCRIPT
chmod +x ../bin/hledger.new
../bin/hledger.new --version >/dev/null
mv ../bin/hledger.new ../bin/hledger
endef

.venv-peers/done: benchmarks/requirements-peers.lock | .venv/bin/python
	@echo "installing the peers of the measurements"
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip --quiet --disable-pip-version-check \
		install --require-hashes -r $<
	@touch $@

.venv/bin/hledger: export SCRIPT := $(FETCH_HLEDGER)
.venv/bin/hledger: | .venv/bin/python
	@if command -v hledger >/dev/null; then ln -sf "$$(command -v hledger)" $@; exit; fi; \
	command -v apt-get >/dev/null || { $(NO_HLEDGER); }; \
	echo "fetching hledger, the independent oracle of the ledger's tests"; \
	bash -c "$$SCRIPT" </dev/null || { rm -rf .venv/hledger; $(NO_HLEDGER); }
