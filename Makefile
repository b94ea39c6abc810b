# `make` alone lists the targets. It needs Python 3.11 or newer and a network; the rest is installed into .venv.

BIN := .venv/bin
STAMP := .venv/installed-from
RELEASED := gen/released.binpb
LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' --quiet

# The Python for .venv: the first of these that runs and is new enough. Override it with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# AGENTS are the agents that `make dev` starts. ARGS go to the tool of a target, as in make test ARGS='-k lease'.
AGENTS ?= demos.payments
ARGS ?=
# The number of parallel test processes; the tests of a file stay together, because they may share a server.
WORKERS ?= auto

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo dev test check format lint types imports drift breaking picture gen protos release-image bench bench-plots chaos attack mutants lock pin-images package clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# A virtual environment contains absolute paths: after its folder was moved or copied, it is created again.
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

lock: $(STAMP) ## resolve pyproject.toml into requirements*.lock; ARGS=--upgrade takes the newest versions
	@$(LOCK) $(ARGS) --extra dev --extra console --extra export --group dev --output-file requirements.lock
	@$(LOCK) --extra cli --extra coordinator --extra visibility --extra console --constraint requirements.lock \
		--output-file requirements-runtime.lock

pin-images: $(STAMP) ## pin the images of deploy/images.lock by digest; needs Docker and the images' registry
	@$(BIN)/python deploy/pin_images.py

# Contracts. Third-party protos are downloaded, not committed; buf finds its plugins on PATH.

PROTOS := proto/buf/validate/validate.proto
BUF := PATH="$(abspath $(BIN)):$$PATH" buf
DESCRIPTORS := gen/python/handrail/v1/descriptors.binpb

protos: $(PROTOS) ## download the third-party protos that contracts import

$(PROTOS): gen/protovalidate.txt gen/fetch_protos.py requirements.lock | $(STAMP)
	@$(BIN)/python gen/fetch_protos.py

# Generates everything into $$scratch, then runs $(1). The descriptors keep their comments, which reflection shows.
define generate
	scratch=$$(mktemp -d .gen.XXXXXX) && trap 'rm -rf "$$scratch"' EXIT && \
	$(BUF) generate --output $$scratch && \
	$(BIN)/python gen/own_rules.py $$scratch/gen/python && \
	$(BUF) build --as-file-descriptor-set --path proto/handrail --output $$scratch/$(DESCRIPTORS) && \
	$(1)
endef

gen: $(STAMP) $(PROTOS) ## generate gen/python from proto/
	@$(call generate,rm -rf gen/python && mv $$scratch/gen/python gen/python)

drift: $(STAMP) $(PROTOS)
	@$(call generate,{ diff -rq -x __pycache__ $$scratch/gen/python gen/python || \
		{ echo "gen/python is out of date: run make gen and commit the result." >&2; exit 1; }; })

breaking: $(STAMP) $(PROTOS) ## compare proto/ with the released contracts, as contracts check does
	@$(BIN)/handrail contracts check --only breaking --against $(RELEASED)

release-image: $(STAMP) $(PROTOS) ## declare the current proto/ as released; the commit says why, and whom it affects
	@$(BUF) build --exclude-source-info --exclude-path proto/google --output $(RELEASED)

# Checks and tests.

test: $(STAMP) $(PROTOS) ## run all tests on all cores (WORKERS=n); ARGS go to pytest: make test ARGS='-k lease'
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

check: lint types drift breaking imports ## all checks except tests: lint, types, generated code, contracts, imports

lint: $(STAMP) $(PROTOS) ## check style and format of code and contracts
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BUF) lint
	@$(BUF) format --diff --exit-code --exclude-path proto/google --exclude-path proto/buf

format: $(STAMP) $(PROTOS) ## format code and contracts
	@$(BIN)/ruff check --quiet --fix --select I
	@$(BIN)/ruff format --quiet
	@$(BUF) format --write --exclude-path proto/google --exclude-path proto/buf

types: $(STAMP)
	@$(BIN)/mypy --no-error-summary

imports: $(STAMP)
	@$(BIN)/python -m pytest --quiet --no-header tests/contract/test_imports.py tests/contract/test_layout.py

picture: $(STAMP) ## draw packages and their imports: docs/rooms.svg
	@$(BIN)/python -m docs.picture $(ARGS)

# gRPC would only warn about forks, but an exec follows each fork at once.
bench: $(STAMP) ## measure flows per second, CPU and latency, beside the bare broker: ARGS='--quick', ARGS=--help
	@GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python bench/run.py $(ARGS)

bench-plots: $(STAMP) ## draw a run as SVG: ARGS='FILE.json FOLDER', after make bench ARGS='--json FILE.json'
	@$(BIN)/python bench/plots.py $(ARGS)

chaos: $(STAMP) ## run load and faults, then the history checker: SEED=n MINUTES=n SERVERS=1|3 KEEP=folder
	@GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python -m tests.chaos.history.run $(if $(SEED),--seed "$(SEED)") \
		$(if $(MINUTES),--minutes "$(MINUTES)") $(if $(SERVERS),--servers "$(SERVERS)") $(if $(KEEP),--keep "$(KEEP)")

attack: $(STAMP) $(PROTOS) ## attack a running installation: ARGS='29 30' for some attacks, KEEP=folder keeps the logs
	@GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python -m tests.attacks.run $(if $(KEEP),--keep "$(KEEP)") $(ARGS)

mutants: $(STAMP) $(PROTOS) ## break each promise on purpose: its tests must fail
	@$(BIN)/python tests/mutants/run.py $(ARGS)

package: $(STAMP) ## build, check, install and try the distributions: dist/; PYTHON313=/path/to/python; ARGS=--no-sizes
	@$(BIN)/python -m tests.package.run $(ARGS)

# Demos. INPUT_ has a demo's own variables.

DEMO ?= payments
DEMOS := $(patsubst agents/demos/%/__main__.py,%,$(wildcard agents/demos/*/__main__.py))
INPUT_compliance = $(if $(SITE),--site "$(SITE)") $(if $(POLICY),--policy "$(POLICY)")
INPUT_research = $(if $(TREE),--tree "$(TREE)")
INPUT_payments = $(if $(CHARGEBACKS),--chargebacks "$(CHARGEBACKS)")

demo: $(STAMP) ## run a demo: DEMO=payments|compliance|research SEED=n KEEP=folder STAY=1, and its own variables
	@test -n "$(filter $(DEMO),$(DEMOS))" || { echo "There is no demo $(DEMO). The demos are: $(DEMOS)" >&2; exit 1; }
	@$(BIN)/python -m demos.$(DEMO) $(INPUT_$(DEMO)) $(if $(SEED),--seed "$(SEED)") $(if $(KEEP),--keep "$(KEEP)") \
		$(if $(STAY),--stay)

dev: $(STAMP) ## start everything on this machine, with the agents of AGENTS
	@$(BIN)/handrail dev --agents $(AGENTS)

clean: ## remove caches and fetched protos; .venv stays
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis dist proto/google proto/buf
