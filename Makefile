# Everything a person types. Python 3.11 or newer, make and a package index are all that is needed.
PYTHON ?= python3
BIN := .venv/bin
export DAGSTER_DISABLE_TELEMETRY := 1

.PHONY: run setup test ui lint types bench soak faults fuzz guided screenshots clean help

help: ## what can be typed
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: .venv/ready ## set up, fetch and publish every open month, and show them
	@$(BIN)/billing-pipeline refresh

setup: .venv/ready ## set up, or bring up to date, what the commands need

test: .venv/ready ## set up and pass the tests
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

ui: .venv/ready ## the Dagster UI, with schedule and sensors
	@$(BIN)/billing-pipeline ui

lint: .venv/ready ## formatting and lint
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: .venv/ready ## the type checker
	@$(BIN)/mypy

bench: .venv/ready ## measure, and write benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks $(ARGS)

soak: .venv/ready ## kill everything at random, a hundred times, and see that numbers stay right
	@$(BIN)/python -m billing_pipeline_tests.soak $(ARGS)

faults: .venv/ready ## write the tables of faults into README.md and docs/faults.md
	@$(BIN)/python -m billing_pipeline_tests.fault_matrix

fuzz: .venv/ready ## mutated pages against each provider's reading: ARGS="--minutes 15"
	@$(BIN)/python -m billing_pipeline_tests.fuzzing $(ARGS)

guided: .venv/ready ## the same, guided by coverage (atheris, installed for this alone): ARGS="--minutes 15"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0 # Linux, CPython 3.11 to 3.13
	@$(BIN)/python -m billing_pipeline_tests.guided $(ARGS)

# Anew only when the lock file or the project's description changes. --no-deps: the lock names every package there is.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed. Type: make $(or $(MAKECMDGOALS),run) PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -m venv .venv 2>/dev/null || \
		{ echo 'This Python cannot make a virtual environment. On Debian type: apt-get install python3-venv'; exit 1; }
	@echo 'Setting up .venv (once, about a minute) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch .venv/ready

screenshots: .venv/ready ## the pictures of docs/dagster-ui.md, taken anew; needs Chromium
	@PROGRAMS_REQUIRED=1 SCREENSHOTS=docs/screenshots $(BIN)/python -m pytest -p no:xdist billing_pipeline_tests/test_browser.py

clean: ## remove the environment; data/ stays
	rm -rf .venv
