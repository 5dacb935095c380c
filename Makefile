# `make` lists the targets. They need only Go, unless their description says otherwise.

# The version of a release, such as 0.2.0. Without it, `dstack version` names the commit: 0.2.0-dev+3f1c7b2a9d04.
VERSION ?=
GO      ?= go
BINARY  := bin/dstack

.DEFAULT_GOAL := help
.PHONY: help build package demo test unit lint sim bench clean

help: ## list the targets
	@echo 'dstack: from one YAML file to a published service'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/dstack, one static binary
	@GO='$(GO)' scripts/build.sh $(BINARY) $(VERSION)

package: ## build the Debian package in dist/; VERSION names its version, GOARCH its architecture
	@GO='$(GO)' scripts/build.sh package $(VERSION)

demo: build ## start a server, apply examples/http-server, call it; needs Go and python3 only
	@scripts/demo.sh $(BINARY)

test: ## run all tests: lint, packages with -race, both databases, real engines, end to end
	@scripts/test.sh

unit: ## run the quick tests of the packages; installs and starts nothing
	$(GO) test -short ./...

lint: ## run gofmt, shellcheck, go vet, golangci-lint; build every platform; print figures about names and sizes
	@scripts/lint.sh

sim: ## run many random histories of the simulated world, compare 10 000 trees with git, run all clients of the model endpoint, test the API with many requests made from its description, take hosts and nodes away from services in every way, kill the server while it rents machines, kill and freeze servers that share a database, replace running processes under many streams, load a server for an hour, and check that the tests find deliberate faults
	$(GO) test ./internal/decide/lifecycle -run Sim -count=1 -timeout 60m -rapid.checks=20000
	$(GO) test ./internal/gitignore -run AgreesWithGit -count=1 -timeout 60m -oracle.cases=10000
	@scripts/test.sh clients
	@scripts/test.sh properties
	@scripts/test.sh fleet
	@scripts/test.sh clouds
	@scripts/test.sh cluster
	@scripts/test.sh servers
	@scripts/test.sh takeover
	@scripts/test.sh soak
	$(GO) run scripts/mutate.go

bench: ## measure what users wait for, also beside the published releases; parts of it need Docker, nginx and Python
	@scripts/test.sh bench

clean: ## remove bin/ and dist/ (the caches of the tests are in ~/.cache/dstack-test)
	rm -rf bin dist
