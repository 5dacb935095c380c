#!/usr/bin/env bash
# Builds the static binary, and shows progress: the first build compiles several
# hundred packages, which takes minutes on a small machine.
#
#   scripts/build.sh OUTPUT [VERSION]
set -uo pipefail
cd "$(dirname "$0")/.."
output=${1:?usage: scripts/build.sh OUTPUT [VERSION]}
ldflags="-s -w${2:+ -X main.version=$2}"
go=${GO:-go}

# show_progress reads the output of `go build -v`. Names of packages, one a line
# as each is compiled, become one progress line; everything else is printed.
show_progress() {
	local total=$1 compiled=0 shown=$SECONDS line
	while IFS= read -r line; do
		if [[ $line =~ [[:space:]:] || -z $line ]]; then
			[ -t 2 ] && printf '\r\033[K' >&2
			printf '%s\n' "$line" >&2
			continue
		fi
		compiled=$((compiled + 1))
		if [ -t 2 ]; then
			printf '\r\033[Kcompiling: %d of %d packages' "$compiled" "$total" >&2
		elif ((SECONDS - shown >= 10)); then
			shown=$SECONDS
			echo "compiling: $compiled of $total packages after ${SECONDS}s" >&2
		fi
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
	[ "$compiled" -lt 20 ] || echo "compiled $compiled packages in ${SECONDS}s" >&2
}

[ -e "$output" ] || echo "building $output; the first build downloads and compiles all dependencies" >&2
total=$(CGO_ENABLED=0 "$go" list -deps ./cmd/dstack | wc -l)
CGO_ENABLED=0 "$go" build -v -trimpath -buildvcs=auto -ldflags "$ldflags" -o "$output" ./cmd/dstack 2>&1 | show_progress "$total"
exit "${PIPESTATUS[0]}"
