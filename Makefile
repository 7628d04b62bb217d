# Millwright: `make` prints what there is. Every target sets up .venv first if it is not there.
.DEFAULT_GOAL := help
.PHONY: help setup demo test trials bench lint format kafka erp schemas docs lock
BIN := .venv/bin
PYTHONS ?= python3.13 python3.12 python3.11 python3
COMPILE = $(BIN)/uv pip compile -q $(UPGRADE) --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
STAMP := .venv/.millwright-$(shell sha256sum requirements.lock pyproject.toml | sha256sum | cut -c1-16)

help: ## print the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP) ## make .venv with everything in it, .venv/bin/hub first of all

demo: setup ## run a believable factory and the hub that listens to it; Ctrl-C ends both
	@$(BIN)/hub demo

test: setup ## run all tests, files side by side, since most of them wait (ARGS="-k word" for some)
	@$(BIN)/pytest -n 3 --dist loadfile $(ARGS)

trials: setup ## kill, cut, shuffle and crash the hub (SMALL=1; ONLY=name,…; WITHOUT=mechanism must fail; SEED=n); build/trials.json
	@SMALL="$(SMALL)" ONLY="$(ONLY)" WITHOUT="$(WITHOUT)" SEED="$(SEED)" $(BIN)/python -m tests.crash.trials

lint: setup ## ruff, mypy --strict, import-linter, schema freeze
	$(BIN)/ruff check --no-cache && $(BIN)/ruff format --no-cache --check && $(BIN)/mypy
	$(BIN)/lint-imports --no-cache && $(BIN)/python -m hub.app.schemas --check

format: setup ## let ruff format and mend what it can
	@$(BIN)/ruff check --fix-only -q && $(BIN)/ruff format

bench: setup ## measure against limits and peers, write build/bench.json (SMALL=1: quick; ONLY=name: some rows)
	@$(BIN)/python -m tests.performance.bench

kafka: setup ## fetch Apache Kafka and run one broker on this machine (Java 17 or newer, Maven); Ctrl-C ends it
	@$(BIN)/python -m hub.app.servers.kafka run --port $(or $(PORT),9092)

erp: setup ## fetch Tryton, a real ERP, and run it on the hub's PostgreSQL server (PORT=n; ARGS=--fresh); Ctrl-C ends it
	@$(BIN)/python -m hub.app.servers.erp run --port $(or $(PORT),8069) $(ARGS)

schemas: setup ## freeze the schema of every new event type and version under schemas/
	@$(BIN)/python -m hub.app.schemas

docs: setup ## write docs/events.md from the event classes
	@$(BIN)/python -m hub.app.docs

lock: setup ## write requirements.lock anew from pyproject.toml, and the ERP's from erp.in (UPGRADE=--upgrade for newer versions)
	@$(COMPILE) --all-extras pyproject.toml -o requirements.lock
	@$(COMPILE) hub/app/servers/erp.in -o hub/app/servers/erp.lock

$(STAMP): | requirements.lock pyproject.toml
	@for python in $(PYTHONS); do \
	  $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; [ -n "$$python" ] || { echo "setup: no Python 3.11 or newer with venv found ($(PYTHONS)). Debian: apt-get install python3-venv;" \
	  "or name one: make setup PYTHONS=/path/to/python3" >&2; exit 1; }; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $$python -m venv --clear .venv
	@echo "setup: installing into .venv what requirements.lock names (a minute or two)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@rm -f .venv/.millwright-*; touch $@
	@echo "setup: done; $(BIN)/hub is there"
