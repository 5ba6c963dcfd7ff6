# Every command below does its own set-up; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
TEST_PROCESSES ?= 3  # most of a slow test is waiting for a server

BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done
# With more threads than one, what trains in tests takes twice the processor time: it is tiny.
PYTEST = OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup run up down test test-fast test-soak coverage faults bench docs lint format lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(SETUP) ## install everything into .venv, from the hashed lock

$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Atelier needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked environment into $(VENV) (7 GB, some minutes) ..."
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## train, judge, register and sample all models on the embedded data
	@$(BIN)/atelier run

up: setup ## start servers and worker; schedules and events then work by themselves
	@$(BIN)/atelier up

down: setup ## stop what `make up` started
	@$(BIN)/atelier down

test: setup ## all tests but the long ones
	@$(PYTEST) -m "not soak"

test-fast: setup ## the tests of a few seconds each
	@$(PYTEST) -m "not slow and not soak"

test-soak: setup ## the long tests: whole commands on real servers, a browser, kills, a year of nights
	@$(PYTEST) -m soak

coverage: setup ## `make test` with every line counted; fails under 90 %
	@$(PYTEST) -m "not soak" --cov --cov-report=term

faults: setup ## kill, damage, fill disks, stop servers: all must be survived (45 minutes)
	@$(BIN)/python -m faults

bench: setup ## every benchmark; results go to benchmarks/results.json (hours)
	@OMP_WAIT_POLICY=passive $(BIN)/python -m benchmarks

docs: setup ## the documentation as a site in site/; dead links fail
	@$(BIN)/python docs/reference.py
	@$(BIN)/zensical build --clean --strict

lint: setup ## style, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: setup ## put the code into its style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## resolve the dependencies again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --group dev --group docs --extra postgresql --extra ray --extra play \
		--no-header --no-annotate pyproject.toml -o requirements.lock

clean: ## remove the environment and the site; your runs under .atelier stay
	rm -rf $(VENV) site .cache
