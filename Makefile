# `make` shows what there is. Nothing here needs more than Go, except where it says so.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO      ?= go
BINARY  := bin/dstack
LDFLAGS := -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help build demo test unit lint sim bench clean

help: ## show this
	@echo 'dstack: from one YAML file to an answering service'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/dstack, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/dstack

demo: build ## start a server, apply examples/http-server, call it; needs Go and python3 only
	@scripts/demo.sh $(BINARY)

test: ## everything: lint, unit tests with -race, both databases, real engines, end to end
	@scripts/test.sh

unit: ## the quick loop: unit tests only, nothing installed, nothing started
	$(GO) test -short ./...

lint: ## gofmt, go vet, staticcheck, and every platform compiles
	@scripts/lint.sh

sim: ## the simulated world, for long, and deliberate faults that its tests must find
	$(GO) test ./internal/decide/lifecycle -run Sim -count=1 -timeout 60m -rapid.checks=20000
	$(GO) run scripts/mutate.go

bench: build ## what users wait for, against floors; needs Docker, nginx, Python for some of it
	@scripts/test.sh bench

clean: ## remove what was built here (caches of the tests lie in ~/.cache/dstack-test)
	rm -rf bin
