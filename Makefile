# Everything a newcomer needs. `make help` lists it.
PYTHON ?= python3
RECIPE ?= digits
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SERVER := $(VENV)/.installed-server
INFRA  := $(VENV)/.installed-infra
WORKSPACE ?= $(DEMO)
DEMO   := .demo/$(RECIPE)
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help install demo ui stack lint types test test-infra test-services test-all containers lock clean
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

install: $(STAMP) ## make .venv with every dependency pinned by hash

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(INFRA): requirements/infra.txt $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/infra.txt
	@touch $@

$(SERVER): requirements/server.txt $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/server.txt
	@touch $@

demo: $(STAMP) ## data -> teacher -> student -> verdict -> registry (RECIPE=fashion_mnist for the longer one)
	@test -e $(DEMO)/params.yaml || $(BIN)/robustdistill init $(DEMO) --recipe $(RECIPE) $(if $(DOWNLOAD),--download)
	@$(BIN)/python flows/retrain.py --workspace $(DEMO) --reason "make demo"

ui: $(STAMP) ## MLflow and Prefect on the demo's stores, until Ctrl-C
	@$(BIN)/robustdistill --workspace $(DEMO) ui

stack: $(SERVER) ## PostgreSQL, S3, MLflow, Prefect and a worker here (WORKSPACE=DIR; STACK=sqlite: fewer), until Ctrl-C
	@ROBUSTDISTILL_WORKSPACE=$(WORKSPACE) STACK=$(STACK) infra/stack.sh

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

test: lint types $(INFRA) ## lint, types and tests, as CI runs them
	$(BIN)/pytest -n 2 --dist loadfile -m "not heavy and not services" --cov --cov-report=term:skip-covered

test-infra: $(INFRA) ## compose, images, Kubernetes and MLflow's rights alone; part of make test
	$(BIN)/pytest -m "not services" tests/infra

test-services: $(INFRA) $(SERVER) ## the flows on PostgreSQL and S3, which it installs (apt-get)
	infra/postgres.sh install
	infra/s3.sh install
	$(BIN)/pytest -m services tests/services tests/infra

test-all: lint types $(INFRA) ## and what needs Fashion-MNIST, PostgreSQL and S3
	$(BIN)/pytest -n 2 --dist loadfile -m "not services" --cov --cov-report=term:skip-covered
	$(MAKE) test-services

containers: ## build the images with podman and run the worker's (needs root; CONTAINER=docker takes Docker)
	@infra/containers.sh

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--no-annotate --quiet
LOCKED  = $(COMPILE) -c requirements/dev.txt
lock: ## compile the pinned requirements anew
	$(COMPILE) pyproject.toml --extra dev --output-file requirements/dev.txt
	$(LOCKED) pyproject.toml --output-file requirements/image-worker.txt
	$(LOCKED) pyproject.toml --extra dev --extra infra --output-file requirements/infra.txt
	$(LOCKED) requirements/image-server.in --output-file requirements/image-server.txt
	echo "hatchling==1.27.0" | $(LOCKED) - --output-file requirements/build.txt
	printf 'psycopg2-binary>=2.9\nflask-wtf\n' | $(LOCKED) - --output-file requirements/server.txt
	echo "uv==0.13.9" | $(COMPILE) - --output-file requirements/uv.txt
	$(if $(TORCH_INDEX),printf 'torch==2.13.0+cpu\ntorchvision==0.28.0+cpu\n' | $(COMPILE) - --no-deps --index $(TORCH_INDEX) --output-file requirements/torch-cpu.txt)

clean: ## remove what make made (the demo's models and records too)
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache
