# Everything runs in .venv, made from the locked requirements (versions and hashes) on first use.
# A lock is complete, hence --no-deps: else pip resolves an extra ("coverage[toml]") beyond it and stops on a newer release.
PYTHON ?= python3
BIN := .venv/bin
# ARGS="-n 2 --dist loadfile" runs whole files side by side: much of the time tests wait.
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help buckets postgres serve test check format lint types clients conformance torture bench nodes audit lock clean

.venv/runtime: requirements/runtime.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Moorage needs Python 3.11 or later; set PYTHON=..." >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/runtime requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

.venv/stores: .venv/dev requirements/stores.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/stores.txt
	@touch $@

.venv/deploy: .venv/dev requirements/deploy.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/deploy.txt
	@touch $@

.venv/bench: .venv/dev requirements/bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

serve: .venv/runtime ## run a registry on 127.0.0.1:8968 (ARGS='--port 5000 --root DIR' to change it)
	$(BIN)/moorage serve $(ARGS)

test: .venv/dev ## run the tests (ARGS='tests/web -k range' for some of them)
	$(PYTEST) $(ARGS)

postgres: .venv/dev ## run the tests through HTTP with facts in PostgreSQL (ARGS='-k range' for some of them)
	TEST_METADATA=postgresql $(PYTEST) tests/web $(ARGS)

check: .venv/dev ## format, lint, strict types and tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: .venv/dev ## rewrite the code in the one format, mending what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: .venv/dev ## look for mistakes without running anything
	$(BIN)/ruff check .

types: .venv/dev ## check the types, strictly
	$(BIN)/mypy

clients: .venv/dev $(if $(NODES),.venv/stores) ## run real clients and engines against a real server (NODES=4: against nodes behind nginx)
	$(PYTEST) tests/clients $(if $(NODES),--nodes $(NODES) $(OWN_SERVER)) $(ARGS)

# Clients' tests of what one server is made to do.
OWN_SERVER := $(patsubst %,--ignore tests/clients/test_%.py,adopt import limits tls)

TESTS ?= tests/web tests/conformance/test_matrix.py tests/clients
buckets: .venv/stores ## run the tests of HTTP, the matrix and the clients with bytes in a bucket (STORE=moto, REDIRECT=never)
	$(PYTEST) $(TESTS) \
		--store $(or $(STORE),seaweedfs) --redirect $(or $(REDIRECT),always) $(ARGS)

nodes: .venv/stores ## run four nodes behind nginx, and kill what they stand on (ROUNDS=N times each)
	MOORAGE_NODES_ROUNDS=$(or $(ROUNDS),2) $(PYTEST) tests/nodes $(ARGS)

conformance: .venv/dev ## run the official conformance suite (SUITE=FILE names one built before)
	$(BIN)/python -m tests.conformance.official $(ARGS)

torture: .venv/dev ## kill the server, and what looks after content, 200 times under load; look for what was lost (KILLS=N)
	$(BIN)/python -m tests.torture --kills $(or $(KILLS),200) $(ARGS)
	$(BIN)/python -m tests.torture --duties --kills $(or $(KILLS),200)

bench: .venv/bench ## compare speed with other registries (LOADS=..., PEERS=...)
	$(BIN)/python -m benchmarks $(if $(LOADS),--loads $(LOADS)) $(if $(PEERS),--peers $(PEERS)) $(ARGS)

audit: .venv/dev ## look for known vulnerabilities in the locked requirements
	$(BIN)/python requirements/audit.py $(ARGS)

lock: .venv/dev ## renew the locked requirements
	$(BIN)/python requirements/lock.py

clean: ## remove what the targets above made
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
