#!/usr/bin/env bash
# Runs the linters: gofmt, bash -n, shellcheck of the scripts that run on rented
# machines, go vet, golangci-lint (.golangci.yml) and a build for every platform. It exits with 0 when none finds anything.
# shellcheck and golangci-lint are skipped, with a message, where they cannot be
# installed. At the end come the figures of scripts/words.go, which fail nothing.
set -uo pipefail
cd "$(dirname "$0")/.."

golangci=github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dstack-test
golangci_dir=$cache/golangci-lint-${golangci##*@}
failed=0

# The flags of a release, as in scripts/build.sh. With the same flags everywhere,
# go vet, golangci-lint, the builds and the end-to-end tests share what they compile.
export CGO_ENABLED=0 GOFLAGS="$(go env GOFLAGS) -trimpath"

# step NAME COMMAND... runs the command and prints its result and how long it
# took, and its output if it fails.
step() {
	local name=$1 output began=$SECONDS
	shift
	[ ! -t 1 ] || printf 'lint  ...   %s\r' "$name"
	if output=$("$@" 2>&1); then
		printf 'lint  ok    %-24s %4d s\n' "$name" $((SECONDS - began))
	else
		printf 'lint  FAIL  %-24s %4d s\n' "$name" $((SECONDS - began))
		echo "$output" | sed 's/^/      /'
		failed=1
	fi
}

check_format() {
	local unformatted
	unformatted=$(gofmt -l $(git ls-files -co --exclude-standard '*.go'))
	[ -z "$unformatted" ] && return
	echo "not formatted, run gofmt -w on:"
	echo "$unformatted"
	return 1
}

check_shell() { for s in scripts/*.sh e2e/fleet/*.sh e2e/cluster/*.sh tools/kubebox/*.sh findings/*.sh .ci/run; do bash -n "$s" || return 1; done; }

# ensure_shellcheck installs shellcheck on Debian if it is missing.
ensure_shellcheck() {
	command -v shellcheck && return
	[ "$(id -u)" = 0 ] || return
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends shellcheck
}

# check_machine_scripts checks the scripts in the program, which get their variables (SC2154) from it.
check_machine_scripts() { shellcheck -s sh -e SC2154,SC2015 $(git ls-files 'internal/*.sh'); }

# vet_scripts checks the programs that are no part of a package.
vet_scripts() { for s in scripts/*.go; do go vet "$s" || return 1; done; }

build_for() { CGO_ENABLED=0 GOOS=${1%/*} GOARCH=${1#*/} go build -o /dev/null ./cmd/dstack; }

install_golangci() { [ -x "$golangci_dir/golangci-lint" ] || GOBIN=$golangci_dir go install "$golangci"; }

run_golangci() {
	GOLANGCI_LINT_CACHE=$cache/golangci-lint-cache "$golangci_dir/golangci-lint" run ./...
}

step "gofmt" check_format
step "bash -n" check_shell
if ensure_shellcheck >/dev/null 2>&1; then
	step "shellcheck" check_machine_scripts
else
	echo "lint  SKIP  shellcheck: it is not installed, and apt-get cannot install it"
fi
step "go vet" go vet ./...
step "go vet scripts/*.go" vet_scripts
module=${golangci/\/cmd\/golangci-lint/}
if [ -x "$golangci_dir/golangci-lint" ] || go mod download "$module" 2>/dev/null; then
	[ -x "$golangci_dir/golangci-lint" ] || step "install golangci-lint" install_golangci
	step "golangci-lint" run_golangci
else
	echo "lint  SKIP  golangci-lint: the Go module proxy cannot be reached"
fi
for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
	step "build $platform" build_for $platform
done
echo
echo "figures, to look at (CONTRIBUTING.md says what they are good for):"
go run scripts/words.go
exit $failed
