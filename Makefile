# Go is all that must be there; `make test` and `make demo` install the rest.
SHELL := /bin/bash
GO ?= go
export CGO_ENABLED ?= 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 5s
ROUNDS ?= 500
SEED ?= 1
# The helper is the one program with cgo; NVML's own header warns of itself.
NVML_ENV := CGO_ENABLED=1 CGO_CFLAGS='-g -O2 -Wno-deprecated-declarations'
BUF_VERSION := v1.75.0
PROTOC_GEN_GO_VERSION := v1.36.12
CONNECT_VERSION := v1.21.1

.PHONY: help build fmt lint test race fuzz-smoke chaos chaos-tasks kills mpi-suite verify demo generate bench-launch bench-tasks bench-up bench-exchange deps

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/gangway, static, and bin/gangway-nvml where there is a C compiler
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/gangway ./cmd/gangway
	@if [ "$$($(GO) env GOOS)" != linux ] || ! command -v "$$($(GO) env CC)" >/dev/null; then \
		echo "no C compiler for Linux: bin/gangway-nvml is not built, nvidia-smi will be asked for GPUs"; \
	elif ! $(NVML_ENV) $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/gangway-nvml ./cmd/gangway-nvml; then \
		echo "bin/gangway-nvml could not be built (above), nvidia-smi will be asked for GPUs"; \
	fi

fmt: ## format the Go code
	gofmt -w .

lint: ## gofmt, go vet, and a build for Windows
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "not formatted (make fmt):"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	GOOS=windows $(GO) build ./...

deps: ## install what the tests need (says what, before it does)
	@bash .ci/deps.sh

test: deps ## all tests, set-up included
	$(GO) test -timeout 20m ./...
	@if command -v "$$($(GO) env CC)" >/dev/null; then $(NVML_ENV) $(GO) test ./gpu/nvml ./cmd/gangway-nvml; fi

race: deps ## the tests of what runs concurrently, under the race detector
	$(NVML_ENV) $(GO) test -race -timeout 30m ./nodeagent/... ./launcher/... ./internal/... ./cmd/...

fuzz-smoke: ## every fuzz target for FUZZTIME (5s)
	@bash .ci/fuzz-smoke $(FUZZTIME)

chaos: deps ## ROUNDS (500) seeded rounds of kills, cuts and lost hosts under load; needs root
	CHAOS_ROUNDS=$(ROUNDS) CHAOS_SEED=$(SEED) $(GO) test ./cmd/gangway -run 'TestChaos$$' -count=1 -v -timeout 90m

# A plain ROUNDS is chaos's 500; this one takes what the command line gives.
chaos-tasks: deps ## ROUNDS (100) seeded kills of launcher, agents and crews under arrays of 100,000 tasks
	TASKCHAOS_ROUNDS=$(if $(filter command,$(origin ROUNDS)),$(ROUNDS),100) TASKCHAOS_SEED=$(SEED) $(GO) test ./cmd/gangway -run 'TestTaskChaos$$' -count=1 -v -timeout 60m

kills: deps ## every kill in the middle of MPI_Init, a collective and Finalize; needs root
	KILLS=all $(GO) test ./cmd/gangway -run 'TestKills' -count=1 -v -timeout 60m

mpi-suite: build ## mpi4py's own tests under gangway and under each MPI's mpirun; the lab needs root
	bash .ci/deps.sh --suite
	python3 benchmarks/peers/suite/run.py --write

verify: ## the long rest: lint, race, fuzzing, chaos, kills, examples, peers
	bash .ci/deps.sh --all
	$(MAKE) lint test race
	$(MAKE) fuzz-smoke FUZZTIME=60s
	$(MAKE) chaos
	$(MAKE) chaos-tasks
	$(MAKE) kills
	$(MAKE) mpi-suite
	bash examples/cfd-cavity/run.sh
	for e in monte-carlo thumbnails ocr cavity-sweep; do bash examples/$$e/run.sh || exit 1; done
	python3 benchmarks/peers/launch/run.py
	python3 benchmarks/peers/tasks/run.py

demo: ## a real MPI program on this machine; as root on four lab hosts too
	@bash .ci/deps.sh --demo
	@$(MAKE) --no-print-directory -s build
	@bash examples/hello/demo.sh

bench-launch: build ## gangway run against mpiexec over ssh and srun
	bash .ci/deps.sh --all
	python3 benchmarks/peers/launch/run.py

bench-tasks: build ## small tasks: gangway against posix_spawn, xargs, GNU Parallel, HyperQueue and Slurm
	bash .ci/deps.sh --all
	python3 benchmarks/peers/tasks/run.py

bench-exchange: ## the start-up exchange of gangs of 64 to 1024 members, and its floor
	$(GO) run ./benchmarks/exchange
	$(GO) run ./benchmarks/exchange -floor

bench-up: build ## a launcher that stays: nodes, storms, tasks by page, restart
	$(GO) run ./benchmarks/up
	$(GO) test ./launcher/store -run '^$$' -bench BenchmarkRestore -benchtime 3x

generate: ## the wire's Go code from its .proto
	@mkdir -p .cache/bin
	GOBIN=$(CURDIR)/.cache/bin $(GO) install github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION)
	GOBIN=$(CURDIR)/.cache/bin $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION)
	GOBIN=$(CURDIR)/.cache/bin $(GO) install connectrpc.com/connect/cmd/protoc-gen-connect-go@$(CONNECT_VERSION)
	PATH=$(CURDIR)/.cache/bin:$$PATH buf generate
