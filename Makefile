# Targets only; what they do is in scripts/ and in the tools they call.
VENV := $(shell scripts/venv-path)
BIN := $(VENV)/bin
SOURCES := shared/src services tests

.DEFAULT_GOAL := help
.PHONY: help install install-dev run test try-compose lint format types docs bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Make the environment that `make run` uses
	@scripts/install $(VENV) run

install-dev: ## Make the environment that tests and lint use
	@scripts/install $(VENV) dev

run: install ## Start everything on this machine and print where to click
	@exec $(BIN)/carrel up --demo $(ARGS)

test: install-dev ## Run every test (ARGS="-k name" passes options to pytest)
	@scripts/test-packages
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

try-compose: install-dev ## Build the containers and work in them (needs Docker and Compose)
	PYTHONPATH=tests $(BIN)/python tests/deploy/try_compose.py

lint: install-dev ## Check style, types and formatting, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types

format: install-dev ## Put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install-dev ## Check the types
	$(BIN)/mypy $(SOURCES)

docs: install-dev ## Write docs/settings.md from the code
	$(BIN)/python scripts/settings_reference.py

bench: install-dev ## Measure the proxy beside its peers, then starts and memory of the whole
	$(BIN)/python tests/bench/proxy.py $(ARGS)
	$(BIN)/python tests/bench/table.py
	$(BIN)/python tests/bench/embedded.py

clean: ## Remove what these targets made: environment, test output, the demo account
	@scripts/clean
