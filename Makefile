# Two commands do all the set-up: `make demo` and `make test`. Both build .venv from a lock file with hashes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test lint types contracts docs wheel check lock clean

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.run: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes --requirement requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(INSTALL) --require-hashes --requirement requirements-dev.lock
	touch $@

demo: $(VENV)/.run  ## Run the main job: a campaign against a simulated app in another process
	$(BIN)/python examples/retention/demo.py

test: $(VENV)/.dev  ## Every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

contracts: $(VENV)/.dev  ## Who may import whom
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## Generated pages are up to date
	$(BIN)/python docs/generate.py --check

wheel: $(VENV)/.dev  ## The wheel works with the source out of reach
	$(BIN)/python tests/wheel/check_wheel.py

check: lint types contracts docs wheel test  ## Everything

lock: $(VENV)/.dev  ## Resolve the lock files anew (needs uv)
	uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -q -o requirements.lock
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -q -c requirements.lock -o requirements-dev.lock

clean:  ## Remove what was built
	rm -rf $(VENV) dist build runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
