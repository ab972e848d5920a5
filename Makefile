# Everything a newcomer needs. `make help` lists it.
PYTHON ?= python3
RECIPE ?= digits
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
INFRA  := $(VENV)/.installed-infra
WORKSPACE ?= $(DEMO)
DEMO   := .demo/$(RECIPE)
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help install demo ui stack lint types test test-infra test-all containers lock clean
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

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

demo: $(STAMP) ## data -> teacher -> student -> verdict -> registry (RECIPE=fashion_mnist for the longer one)
	@test -e $(DEMO)/params.yaml || $(BIN)/robustdistill init $(DEMO) --recipe $(RECIPE) $(if $(DOWNLOAD),--download)
	@$(BIN)/python flows/retrain.py --workspace $(DEMO) --reason "make demo"

ui: $(STAMP) ## MLflow and Prefect on the demo's stores, until Ctrl-C
	@$(BIN)/robustdistill --workspace $(DEMO) ui

stack: $(STAMP) ## MLflow, Prefect and a worker on this machine (WORKSPACE=DIR), until Ctrl-C
	@ROBUSTDISTILL_WORKSPACE=$(WORKSPACE) infra/stack.sh

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

test: lint types $(INFRA) ## lint, types and tests, as CI runs them
	$(BIN)/pytest -n 2 --dist loadfile -m "not heavy" --cov --cov-report=term:skip-covered

test-infra: $(INFRA) ## compose, images, Kubernetes and MLflow's rights alone; part of make test
	$(BIN)/pytest tests/infra

containers: ## build the images with podman and run the worker's (needs root; CONTAINER=docker takes Docker)
	@infra/containers.sh

test-all: lint types $(INFRA) ## and what needs Fashion-MNIST or services
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet
lock: ## compile the pinned requirements anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --quiet --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt --output-file requirements/image-worker.txt
	$(COMPILE) pyproject.toml --extra dev --extra infra -c requirements/dev.txt --output-file requirements/infra.txt
	$(COMPILE) requirements/image-server.in -c requirements/dev.txt --output-file requirements/image-server.txt
	echo "hatchling==1.27.0" | $(COMPILE) - -c requirements/dev.txt --output-file requirements/build.txt
	$(if $(TORCH_INDEX),printf 'torch==2.13.0+cpu\ntorchvision==0.28.0+cpu\n' | $(COMPILE) - --no-deps --index $(TORCH_INDEX) --output-file requirements/torch-cpu.txt)
	echo "uv==0.13.9" | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --quiet --output-file requirements/uv.txt

clean: ## remove what make made (the demo's models and records too)
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache
