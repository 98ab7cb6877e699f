# Every target sets up what it needs and skips what is there already.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
JOBS ?= 2

.PHONY: help demo up test test-long check fix bench openapi lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/runtime ## strangers compute a picture, a cheat is caught, the others are paid
	@$(BIN)/gstd demo $(ARGS)

up: .venv/runtime ## start the whole platform on this machine
	@$(BIN)/gstd up $(ARGS)

test: .venv/dev ## run all tests
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-long: .venv/dev ## run all tests, the random ones at ten times the size
	@GSTD_TEST_SCALE=10 $(BIN)/python -m pytest -n $(JOBS) --timeout 1200 $(ARGS)

check: .venv/dev ## format, lint, types, import rules
	@echo "format" && $(BIN)/ruff format --check --quiet .
	@echo "lint" && $(BIN)/ruff check --quiet .
	@echo "types" && $(BIN)/mypy
	@echo "imports" && $(BIN)/lint-imports --no-logo

fix: .venv/dev ## format the code and mend what the linter can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

bench: .venv/dev ## measure: start to first paid task, SQL statements per claim and result
	@$(BIN)/python -m benchmarks.run $(ARGS)

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
	@rm -rf .venv build dist out .mypy_cache .ruff_cache .import_linter_cache .hypothesis

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
