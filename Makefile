SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DISTRIBUTIONS := operator connector-sdk $(wildcard connectors/*)
SOURCES := operator/src connector-sdk/src $(wildcard connectors/*/src)
# The other tests are not clean yet.
TYPED_TESTS := $(wildcard tests/*.py) $(addprefix tests/,chart fakes run_api unit/adversarial unit/cluster unit/code)
TYPED := $(SOURCES) docs benchmarks examples images locks $(TYPED_TESTS)
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: conformance-table counts reference reference-check
.PHONY: help demo test unit integration model fuzz adversarial chaos conformance identity chart cluster-test lint format crds crds-check lock images cluster cluster-demo cluster-down bench bench-control-plane

help: ## List what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): locks/dev.txt $(addsuffix /pyproject.toml,$(DISTRIBUTIONS))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r locks/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation $(addprefix -e ./,$(DISTRIBUTIONS))
	touch $@

demo: $(READY) ## Real tables through the whole platform on this machine
	$(BIN)/python examples/demo/demo.py

test: $(READY) lint crds-check unit integration model fuzz adversarial chaos conformance identity chart cluster-test ## Everything that CI runs

unit: $(READY) ## Tests that need no server
	$(BIN)/pytest tests/unit -n 2

integration: $(READY) ## Tests on a real Postgres, a real S3 protocol and real processes
	$(BIN)/pytest tests/integration -n 2

model: $(READY) ## The run protocol against a model, on a real Postgres (N=10000 for the long run)
	PENSTOCK_MODEL_SEQUENCES=$(or $(N),100) $(BIN)/pytest tests/model

fuzz: $(READY) ## Resources made from the CRDs' schema, and calls made from the API's (N=50000 documents for the long run)
	PENSTOCK_FUZZ_DOCUMENTS=$(or $(N),2000) $(BIN)/pytest tests/fuzz -n 2

adversarial: $(READY) ## Attacks, each with the invariant that it attacks, and a table of tried and succeeded
	$(BIN)/pytest tests/adversarial -n 2

chaos: $(READY) ## Processes killed, paused and cut off; Bronze read back (SCALE=1 for 100 kills, SCALE=10 for 1,000)
	SCALE=$(or $(SCALE),0.15) $(BIN)/python -m tests.chaos.run

conformance: $(READY) ## Hostile connectors, each caught by one check of the conformance suite
	$(BIN)/pytest tests/conformance -n 2

conformance-table: $(READY) ## The table hostile connector by check, written from the suite's own runs
	rm -rf .state/hostile-rows && mkdir -p .state/hostile-rows
	PENSTOCK_HOSTILE_ROWS=$(CURDIR)/.state/hostile-rows $(BIN)/pytest tests/conformance/test_hostile.py -n 2 --deselect tests/conformance/test_hostile.py::test_the_page_names_every_check_and_connector
	$(BIN)/python -m tests.conformance.table .state/hostile-rows

identity: $(READY) ## Logins against a real Keycloak on this machine (Java 17 and Maven; about two minutes)
	$(BIN)/pytest tests/identity -rs

chart: $(READY) ## What Helm renders (Helm, or Go to build it)
	tests/chart/run

cluster-test: $(READY) ## Tests with real pods on a real Kubernetes, and Penstock installed in it by Helm
	tests/cluster/run

lint: $(READY) reference-check ## Style, types, import contracts, and the reference against the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

reference: $(READY) ## Write docs/reference and the chart's values schema from the code's docstrings, settings, schemas and help
	$(BIN)/python docs/generate.py docs/reference
	$(BIN)/python docs/chart_schema.py charts/penstock/values.schema.json

reference-check: $(READY)
	$(BIN)/python docs/generate.py .state/reference
	diff -r .state/reference docs/reference || { echo "docs/reference is not what the code says: make reference"; exit 1; }
	$(BIN)/python docs/chart_schema.py .state/values.schema.json
	diff .state/values.schema.json charts/penstock/values.schema.json || { echo "the chart's values schema is not what settings.py says: make reference"; exit 1; }

counts: $(READY) ## Lower the numbers of tests/unit/code/counts.toml to what the sources have
	$(BIN)/python -m tests.unit.code.counts

format: $(READY) ## Mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

crds: $(READY) ## Generate the CRDs from the models
	$(BIN)/python -m penstock_operator.resources.crds crds charts/penstock/files/crds

crds-check: $(READY)
	$(BIN)/python -m penstock_operator.resources.crds .state/crds
	diff -r .state/crds crds && diff -r .state/crds charts/penstock/files/crds

lock: ## Compile the lock files (needs uv; UPGRADE=1 takes the newest versions)
	$(PYTHON) locks/compile.py $(if $(UPGRADE),--upgrade)

images: $(READY) ## Build the images and push them: make images REGISTRY=localhost:5000 [NAMES="operator"]
	@: $${REGISTRY:?name the registry to push to, such as REGISTRY=localhost:5000}
	images/build "$$REGISTRY" $(NAMES)

cluster: ## A real Kubernetes on this machine: one that is named, kind, or built from Debian's packages
	CLUSTER_N=$${CLUSTER_N:-6} python3 tests/cluster/provider.py up .state/cluster

cluster-demo: $(READY) ## The chart, two connections and their Bronze data, all in a cluster
	tests/cluster/demo

cluster-down: ## End it and leave nothing behind
	CLUSTER_N=$${CLUSTER_N:-6} python3 tests/cluster/provider.py down .state/cluster
	CLUSTER_N=$${CLUSTER_N:-7} python3 tests/cluster/provider.py down .state/cluster-test
	tests/cluster/demo down
	rm -rf .state/images

bench-control-plane: $(READY) ## Ten thousand connections on a real API server with fake nodes (Debian, root)
	$(BIN)/python benchmarks/control_loops.py
	$(BIN)/python benchmarks/list_memory.py
	$(BIN)/python benchmarks/control_plane.py

bench: $(READY) ## Figures, each with its ratio
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/record_path.py
	$(BIN)/python benchmarks/record_checks.py
	$(BIN)/python benchmarks/full_path.py
	$(BIN)/python benchmarks/proven_commits.py
	$(BIN)/python benchmarks/postgres_copy.py
	$(BIN)/python benchmarks/egress.py
	$(BIN)/python benchmarks/claims.py
