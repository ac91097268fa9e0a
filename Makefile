# Two commands do all the set-up: `make demo` and `make test`. Both build .venv from a lock file with hashes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links --quiet
WORKERS ?= 2

.PHONY: help setup demo test lint format types contracts docs wheel benchmarks check lock clean

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# pip, and not python, tells a finished environment from one whose making was interrupted.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "blackopt needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/pip
	$(INSTALL) --require-hashes --requirement requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(INSTALL) --require-hashes --requirement requirements-dev.lock
	@touch $@

setup: $(VENV)/.dev  ## Only build .venv, with everything a developer needs

demo: $(VENV)/.run  ## Run the main job: a campaign against a simulated app in another process
	$(BIN)/python examples/retention/demo.py

test: $(VENV)/.dev  ## Every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.dev  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## Put the style right where a program can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

contracts: $(VENV)/.dev  ## Who may import whom
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.dev  ## Generated pages are up to date
	$(BIN)/python docs/generate.py --check

wheel: $(VENV)/.dev  ## The wheel works with the source out of reach
	$(BIN)/python tests/wheel/check_wheel.py

benchmarks: $(VENV)/.dev  ## Every benchmark, in its quick form
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "$$script --quick"; $(BIN)/python "$$script" --quick; done

check: lint types contracts docs wheel test  ## Everything but the demo and the benchmarks

lock: $(VENV)/.dev  ## Resolve the lock files anew (needs uv)
	$(LOCK) --group build -o requirements.lock
	$(LOCK) --group dev -c requirements.lock -o requirements-dev.lock

clean:  ## Remove what was built
	rm -rf $(VENV) dist build runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
