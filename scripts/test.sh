#!/usr/bin/env bash
# Runs the tests, on real engines:
#
#   scripts/test.sh                 everything; this is `make test`
#   scripts/test.sh lint            only the linters
#   scripts/test.sh unit [FLAGS]    only the tests of the packages
#   scripts/test.sh e2e [FLAGS]     only the real binary, e.g. e2e -run Invalid -v
#   scripts/test.sh properties [FLAGS] only the API's description, with many requests
#   scripts/test.sh clients [FLAGS] only the clients of the model endpoint, with those in Java and Rust
#                                   and the load generators
#   scripts/test.sh fleet [FLAGS]   only hosts over SSH, with all that can happen to them
#   scripts/test.sh clouds [FLAGS]  only rented machines, with many deaths of the server
#   scripts/test.sh cluster [FLAGS] only Kubernetes clusters, with all that can happen to them
#   scripts/test.sh servers [FLAGS] only servers that share a database, which are killed and frozen
#   scripts/test.sh takeover [FLAGS] only processes that replace each other, with many streams
#   scripts/test.sh soak [FLAGS]    only an hour of mixed requests (DSTACK_TEST_SOAK is another time)
#   scripts/test.sh bench [FLAGS]   only the measurements, e.g. bench -only chat
#
# scripts/pieces.sh looks for what the tests need beside Go, such as Docker, and
# installs it if it runs as root; otherwise the tests that need it are skipped by
# name. Everything that was started is stopped at the end. The exit status is 0
# if no test failed and none was skipped without such a reason; see run_e2e for
# tests of the binary that fail once.
set -uo pipefail
cd "$(dirname "$0")/.."
part=${1:-all}
shift
began=$SECONDS
cores=$(getconf _NPROCESSORS_ONLN)

root=$(mktemp -d "${TMPDIR:-/tmp}/dstack-test.XXXXXX")
chmod 711 "$root" # PostgreSQL runs as another user
. scripts/pieces.sh
clean_up() { stop_pieces; rm -rf "$root"; }
trap clean_up EXIT
trap 'exit 130' INT TERM

failed=0
print_title() { echo && echo "== $1, after $((SECONDS - began)) s"; }

start_pieces() {
	print_title "what the tests need ($*)"
	local piece
	for piece; do
		local piece_began=$SECONDS
		"${piece}_piece"
		[ $((SECONDS - piece_began)) -lt 3 ] || echo "piece $piece: $((SECONDS - piece_began)) s"
	done
	[ $pieces_failed = 0 ] || failed=1
}

run_lint() {
	print_title "lint"
	scripts/lint.sh || failed=1
}

# run_tests FLAGS... runs go test and prints a short report. go vet is part of lint.
run_tests() {
	go test -json -vet=off "$@" 2>&1 | "$root/report" "$root/totals" || failed=1
}

run_unit() {
	await_cluster || cluster_tests_left=yes
	print_title "packages of decisions, without the race detector: internal/arch checks that they start nothing"
	CGO_ENABLED=0 GOFLAGS="$(go env GOFLAGS) -trimpath" run_tests -timeout 15m "$@" ./internal/decide/...
	print_title "what requests allocate and hold, without the race detector, which hides it"
	CGO_ENABLED=0 GOFLAGS="$(go env GOFLAGS) -trimpath" run_tests -timeout 5m -run 'Alloc|Memory|OfManyServices' "$@" ./internal/gateway ./internal/relay
	print_title "packages, with the race detector (compiling comes first, for minutes without a cache)"
	# The longest ones first, so that none of them is left over at the end, and more of them at a time than there are cores, as
	# those wait for Docker most of the time. SQLite is translated from C and not ours: without the detector in it, the tests of the
	# store take a fifth of the time. Without data for debuggers, linking takes two thirds.
	# shellcheck disable=SC2046
	run_tests -race -gcflags='modernc.org/...=-race=false' -ldflags=-w -p $((cores * 3 / 2)) -timeout 15m "$@" ./internal/server/store ./internal/engine/docker $(go list ./... | grep -v -e /e2e -e /bench -e /internal/decide/)
}

# run_cluster_packages runs the tests of the packages that speak to Kubernetes.
run_cluster_packages() {
	print_title "packages that need a cluster, with the race detector"
	# shellcheck disable=SC2046
	run_tests -race -gcflags='modernc.org/...=-race=false' -ldflags=-w -timeout 30m "$@" $(go list ./internal/... | grep kube)
}

# test_binary FLAGS... runs the tests of the real binary, with the flags of a release, so that everything is compiled
# already by lint. $root/failed has the packages and names of the tests that failed.
test_binary() {
	rm -f "$root/failed" "$root/binary"
	CGO_ENABLED=0 GOFLAGS="$(go env GOFLAGS) -trimpath" go test -json -vet=off -count=1 -timeout 25m "$@" ./e2e/... 2>&1 |
		"$root/report" "$root/binary" "$root/failed"
}

# run_e2e tests the real binary. All parallel tests begin, and wait for their turns (e2e/turns_test.go). Few tests that fail beside
# the others run once more, alone: that tells a wait that was too short for a busy machine from a fault. Those that pass
# then are named at the end, and their first failure stays in the output.
max_unsteady=3
run_e2e() {
	await_clients
	await_cluster && [ -n "${cluster_tests_left:-}" ] && run_cluster_packages
	print_title "end to end, with the real binary"
	if test_binary -parallel 1000 "$@"; then
		cat "$root/binary" >>"$root/totals"
		return
	fi
	local names='' count=0
	[ ! -e "$root/failed" ] || { names=$(cut -d' ' -f2 "$root/failed" | paste -sd '|'); count=$(wc -l <"$root/failed"); }
	read -r passed _ skipped <"$root/binary"
	if [ "$count" -gt 0 ] && [ "$count" -le $max_unsteady ] && cp "$root/binary" "$root/first" &&
		print_title "once more, alone: $names" && test_binary -parallel 1 -run "^($names)$"; then
		unsteady=${names//|/, }
		echo "$((passed + count)) 0 $skipped" >>"$root/totals"
		return
	fi
	[ ! -e "$root/first" ] || mv "$root/first" "$root/binary"
	cat "$root/binary" >>"$root/totals"
	failed=1
}

go build -o "$root/report" scripts/report.go || exit 1
case $part in
all)
	start_pieces kubebox postgres docker registry images cluster python published newest schemathesis node clients nginx caddy curl wrk valgrind ssh fleet mount before systemd nfpm pebble compute jinja moto karpenter given
	run_lint
	run_unit
	run_e2e
	;;
lint) run_lint ;;
unit) start_pieces kubebox postgres docker registry images cluster ssh fleet mount pebble compute jinja moto karpenter given && run_unit "$@" ;;
e2e) start_pieces kubebox postgres docker registry images cluster python published newest schemathesis node clients nginx caddy curl wrk valgrind ssh fleet mount before systemd nfpm pebble compute given && run_e2e "$@" ;;
clients) start_pieces clients java rust load && run_e2e -run '^TestClients' "$@" ;;
properties) start_pieces postgres schemathesis && DSTACK_TEST_LONG=1 run_e2e -timeout 3h -run '^TestAPIProperties' "$@" ;;
fleet) start_pieces docker registry images ssh fleet && DSTACK_TEST_LONG=1 run_e2e -run '^TestFleet' "$@" ;;
clouds) start_pieces docker registry images published newest ssh fleet compute && DSTACK_TEST_LONG=1 run_e2e -run '^TestCloud_' "$@" ;;
cluster)
	start_pieces kubebox postgres docker registry images cluster
	await_cluster built
	export DSTACK_TEST_LONG=1
	run_cluster_packages
	run_e2e -run '^TestCluster' "$@"
	;;
servers) start_pieces postgres docker registry images ssh && DSTACK_TEST_LONG=1 run_e2e -run '^TestServers' "$@" ;;
takeover) start_pieces before && DSTACK_TEST_LONG=1 run_e2e -run '^Test(TakeOver|Upgrade)' "$@" ;;
soak) DSTACK_TEST_SOAK=${DSTACK_TEST_SOAK:-1h} run_e2e -timeout 0 -run '^TestSoak$' "$@" ;;
bench)
	scripts/build.sh bin/dstack || exit 1
	case " $* " in
	*" -only gateway "* | *" -only=gateway "*) start_pieces nginx caddy wrk haproxy given ;;
	*)
		start_pieces kubebox docker images cluster nginx caddy wrk haproxy jinja fleet published newest_server given
		await_cluster built
		;;
	esac
	print_title "measurements"
	go run ./bench "$@" || failed=1
	;;
*)
	sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
	exit 2
	;;
esac

print_title "total"
if [ -e "$root/totals" ]; then
	awk '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$root/totals"
fi
[ -z "${unsteady:-}" ] || echo "unsteady: failed beside other tests, and passed alone: $unsteady"
[ $failed = 0 ] && echo PASS || echo FAIL
exit $failed
