# `make` alone lists what there is. Needed: Python 3.11 or newer, make and a network; the rest is installed into .venv.

BIN := .venv/bin
STAMP := .venv/installed-from
RELEASED := gen/released.binpb
CODE := mesh agents coordinator cli testing tests bench gen
LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' --quiet

# Which Python makes .venv: the first of these that runs and is new enough. Override with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# What `make dev` starts, and what `make test ARGS='-k lease'` hands to pytest.
AGENTS ?= demos.payments
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo dev test check format lint types imports drift breaking gen protos release-image bench mutants lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# A virtual environment holds absolute paths: one that was moved or copied with its folder is made anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

setup: $(STAMP) ## install the pinned dependencies and this project into .venv

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found: install one, or name it with make PYTHON=/path/to/python." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "$(PYTHON) does not run, or is older than Python 3.11: name another with make PYTHON=/path/to/python." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "This Python has no ensurepip: install the package python3-venv, e.g. apt-get install python3-venv." >&2; exit 1; }
	@echo "Installing into .venv (a minute or two the first time)"
	@"$(PYTHON)" -m venv $(if $(filter $(CURDIR),$(shell cat $(STAMP) 2>/dev/null)),,--clear) .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "$(CURDIR)" > $@

lock: $(STAMP) ## resolve the dependencies anew into requirements*.lock
	@$(LOCK) --group dev --output-file requirements.lock
	@$(LOCK) --constraint requirements.lock --output-file requirements-runtime.lock

# --- Contracts. Third-party protos are fetched, not committed; buf finds its plugins on PATH. ---

PROTOS := proto/buf/validate/validate.proto
BUF := PATH="$(abspath $(BIN)):$$PATH" buf
DESCRIPTORS := gen/python/handrail/v1/descriptors.binpb

protos: $(PROTOS)

$(PROTOS): gen/protovalidate.txt gen/fetch_protos.py requirements.lock | $(STAMP)
	@$(BIN)/python gen/fetch_protos.py

# Generates everything into $$scratch, then does $(1). The descriptors keep their comments, for reflection to show them.
define generate
	scratch=$$(mktemp -d .gen.XXXXXX) && trap 'rm -rf "$$scratch"' EXIT && \
	$(BUF) generate --output $$scratch && \
	$(BUF) build --as-file-descriptor-set --path proto/handrail --output $$scratch/$(DESCRIPTORS) && \
	$(1)
endef

gen: $(STAMP) $(PROTOS) ## generate gen/python from proto/
	@$(call generate,rm -rf gen/python && mv $$scratch/gen/python gen/python)

drift: $(STAMP) $(PROTOS)
	@$(call generate,diff -rq -x __pycache__ $$scratch/gen/python gen/python) || \
		{ echo "gen/python is not what proto/ generates: run make gen and commit the result." >&2; exit 1; }

breaking: $(STAMP) $(PROTOS) ## compare proto/ with the released contracts
	@$(BUF) breaking --against $(RELEASED)

release-image: $(STAMP) $(PROTOS) ## declare proto/ as it stands released: what make breaking compares with
	@$(BUF) build --exclude-source-info --exclude-path proto/google --output $(RELEASED)
