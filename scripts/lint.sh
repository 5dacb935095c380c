#!/usr/bin/env bash
# The linters: gofmt, go vet, staticcheck, and a build for every platform.
# Exits with 0 when all are content. A linter that cannot be fetched is
# skipped by name, and only that one.
set -uo pipefail
cd "$(dirname "$0")/.."

staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dstack-test
failed=0

# step NAME COMMAND...: runs it, and says how it went.
step() {
	local name=$1 output
	shift
	if output=$("$@" 2>&1); then
		echo "lint  ok    $name"
	else
		echo "lint  FAIL  $name"
		echo "$output" | sed 's/^/      /'
		failed=1
	fi
}

formatted() {
	local rest
	rest=$(gofmt -l $(git ls-files -co --exclude-standard '*.go'))
	[ -z "$rest" ] && return
	echo "not formatted, run gofmt -w on:"
	echo "$rest"
	return 1
}

shells() { for s in scripts/*.sh .ci/run; do bash -n "$s" || return 1; done; }

compiles() { CGO_ENABLED=0 GOOS=${1%/*} GOARCH=${1#*/} go build -o /dev/null ./cmd/dstack; }

checked() {
	local bin=$cache/staticcheck-${staticcheck##*@}
	[ -x "$bin/staticcheck" ] || GOBIN=$bin go install "$staticcheck" || return
	"$bin/staticcheck" ./...
}

step "gofmt" formatted
step "bash -n" shells
step "go vet" go vet ./...
step "go vet scripts/report.go" go vet scripts/report.go
if [ -x "$cache/staticcheck-${staticcheck##*@}/staticcheck" ] || go mod download "${staticcheck/\/cmd\/staticcheck/}" 2>/dev/null; then
	step "staticcheck" checked
else
	echo "lint  SKIP  staticcheck: the Go module proxy cannot be reached"
fi
for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
	step "build $platform" compiles $platform
done
exit $failed
