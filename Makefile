# Every target that people need. `make help` lists them.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?=
PYTEST_ARGS ?=
KUBECTL ?= kubectl
REGISTRY ?=
VERSION ?=
COMPONENTS ?=
export PYTHON VENV KUBECTL REGISTRY VERSION COMPONENTS

.DEFAULT_GOAL := help

##@ Start here
.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Give a program a sandbox on this machine: no cluster, no Docker, no kubectl.
	@hack/setup.sh run
	@$(BIN)/python hack/demo.py

.PHONY: test
test: ## Run the tests (under three minutes; sets up what it needs).
	@hack/setup.sh dev
	@hack/test.sh "not slow" $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: ## Run the tests that take longer: elections between processes, a soak, images, a real Prometheus.
	@hack/setup.sh tools
	@hack/test.sh slow $(PYTEST_ARGS)

.PHONY: test-nightly
test-nightly: ## Try 2,000 new scripts on the model of the controllers (ten minutes).
	@hack/setup.sh dev
	AGENT_SANDBOX_MODEL_EXAMPLES=2000 $(BIN)/pytest test/integration/controllers/test_model.py $(PYTEST_ARGS)

##@ Develop
.PHONY: setup
setup: ## Make the virtual environment with everything for development.
	@hack/setup.sh dev

.PHONY: tools
tools: ## Install what further tests use: Prometheus, buildah, debootstrap, shellcheck (apt, as root), LangChain, MCP.
	@hack/setup.sh tools

.PHONY: lint
lint: setup ## Check style, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy agent_sandbox agentic_sandbox api controllers hack test

.PHONY: fmt
fmt: setup ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: up
up: ## Start the local stack in the foreground (Ctrl-C stops it, objects stay).
	@hack/setup.sh run
	$(BIN)/agent-sandbox local up

.PHONY: run
run: ## Run the controllers here, against the cluster of the current kubeconfig.
	@hack/setup.sh run
	$(BIN)/agent-sandbox manager

.PHONY: docs
docs: setup ## Build the documentation as a site, into dist/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo dist/site/index.html

.PHONY: docs-serve
docs-serve: setup ## Show the documentation while you write it, on http://127.0.0.1:8000.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

.PHONY: manifests
manifests: setup ## Generate the CRDs, the API reference and RBAC from the code.
	$(BIN)/python hack/generate_crds.py
	$(BIN)/python hack/generate_api_docs.py
	$(BIN)/python hack/generate_rbac.py

.PHONY: kube-assets
kube-assets: ## Build (once) the real Kubernetes that test-envtest runs against; needs Go.
	@hack/kube/build.sh

.PHONY: test-envtest
test-envtest: setup ## Run the tests that need a real kube-apiserver, against one started for them.
	@hack/test-envtest.sh $(PYTEST_ARGS)

##@ Deploy: on the cluster of the current kubeconfig
.PHONY: install
install: ## Bring the four kinds (CRDs), and nothing else.
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ## Remove the four kinds, and with them every sandbox; lists them first.
	@hack/remove.sh kinds

.PHONY: deploy
deploy: ## Bring everything: REGISTRY=… VERSION=… [COMPONENTS="prometheus grafana"].
	@hack/deploy.sh

.PHONY: undeploy
undeploy: ## Remove what deploy brought (the same COMPONENTS), and with it every sandbox.
	@hack/remove.sh everything

.PHONY: kind-up
kind-up: ## Make a kind cluster with everything in it (needs kind, and docker or podman).
	@hack/kind-up.sh

##@ Release
.PHONY: images
images: ## Build the images of controllers, router and python runtime: [REGISTRY=… VERSION=… BASE=…@sha256:…].
	@hack/images.sh

.PHONY: build-installer
build-installer: ## Write dist/install.yaml, everything in one file: REGISTRY=… VERSION=… [COMPONENTS=…].
	@mkdir -p dist
	@hack/manifests.sh >dist/install.yaml.new && mv dist/install.yaml.new dist/install.yaml
	@echo dist/install.yaml

.PHONY: test-images
test-images: tools ## Build the images twice without a network, and run them (root; about five minutes).
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group release
	assets="$$(hack/kube/build.sh --cached || true)" && export KUBEBUILDER_ASSETS="$$assets" AGENT_SANDBOX_TEST_IMAGES=yes && \
	  $(BIN)/pytest test/images $(PYTEST_ARGS)

.PHONY: build
build: setup ## Build the sdist, and the wheel from it, into dist/.
	$(BIN)/python -m build --outdir dist .

.PHONY: clean
clean: ## Remove what builds, tests and linters leave behind.
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
