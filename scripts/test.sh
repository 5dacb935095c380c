#!/usr/bin/env bash
# Everything that there is to test, on real engines:
#
#   scripts/test.sh                 all of it; this is `make test`
#   scripts/test.sh lint            only the linters
#   scripts/test.sh unit [FLAGS]    only the tests of the packages
#   scripts/test.sh e2e [FLAGS]     only the real binary, e.g. e2e -run Invalid -v
#   scripts/test.sh bench [FLAGS]   only the measurements, e.g. bench -only chat
#
# What the tests need beside Go is found, or installed when this is root, or
# else the tests that need it are skipped by name (scripts/pieces.sh). What is
# started is stopped at the end. Exits with 0 when no test failed, and none
# was skipped that could have run.
set -uo pipefail
cd "$(dirname "$0")/.."
part=${1:-all}
shift
began=$SECONDS

root=$(mktemp -d "${TMPDIR:-/tmp}/dstack-test.XXXXXX")
chmod 711 "$root" # PostgreSQL runs as another user
. scripts/pieces.sh
leave() { stop_pieces; rm -rf "$root"; }
trap leave EXIT
trap 'exit 130' INT TERM

failed=0
title() { echo && echo "== $1"; }

pieces() {
	title "what the tests need ($*)"
	local piece
	for piece; do "${piece}_piece"; done
	[ $pieces_failed = 0 ] || failed=1
}

lint() {
	title "lint"
	scripts/lint.sh || failed=1
}

# tested FLAGS...: go test, in short words.
tested() {
	go test -json "$@" 2>&1 | "$root/report" "$root/numbers" || failed=1
}

unit() {
	title "packages, with the race detector"
	# shellcheck disable=SC2046
	tested -race -timeout 10m "$@" $(go list ./... | grep -v -e /e2e -e /bench)
}

e2e() {
	title "the real binary"
	tested -count=1 -timeout 15m "$@" ./e2e/...
}

go build -o "$root/report" scripts/report.go || exit 1
case $part in
all)
	pieces postgres docker registry images python node mount jinja given
	lint
	unit
	e2e
	;;
lint) lint ;;
unit) pieces postgres docker registry images mount jinja given && unit "$@" ;;
e2e) pieces postgres docker registry images python node mount given && e2e "$@" ;;
bench)
	pieces docker images nginx jinja given
	title "measurements"
	go run ./bench "$@" || failed=1
	;;
*)
	sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
	exit 2
	;;
esac

title "all together, in $((SECONDS - began)) seconds"
if [ -e "$root/numbers" ]; then
	awk '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$root/numbers"
fi
[ $failed = 0 ] && echo PASS || echo FAIL
exit $failed
