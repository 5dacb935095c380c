#!/usr/bin/env bash
# The script behind `make demo`. It starts a server in a temporary folder,
# applies one service, calls it through the gateway, and removes everything
# again. It runs until Ctrl-C; without a terminal, or with DEMO_ONCE=1, it ends
# after the calls.
set -uo pipefail
cd "$(dirname "$0")/.."
dstack=$(realpath "${1:-bin/dstack}")

# The user's DSTACK_URL, DSTACK_TOKEN and so on name a real server: the demo must not use them.
unset_flags=
for name in ${!DSTACK_@}; do
	unset "$name"
	unset_flags+=" -u $name"
done

print_title() { printf '\n\033[1m%s\033[0m\n' "$*"; }
print_plain() { printf '\n%s\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || print_title() { print_plain "$@"; }
fail() { echo "demo: $*" >&2 && exit 1; }

command -v python3 >/dev/null || fail "the example is \`python3 -m http.server\`, and this machine has no python3; install it first"

is_port_used() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
find_free_port() { local p=$1; while is_port_used "$p"; do p=$((p + 1)); done; echo "$p"; }

home=$(mktemp -d "${TMPDIR:-/tmp}/dstack-demo.XXXXXX")
server=
clean_up() {
	trap '' INT TERM
	if [ -n "$server" ]; then
		print_title 'Stopping'
		HOME=$home "$dstack" stop http-server-service -y </dev/null
		kill "$server" 2>/dev/null
		wait "$server" 2>/dev/null
		echo 'The service and the server have stopped; their folder is removed.'
	fi
	rm -rf "$home"
}
trap clean_up EXIT
trap 'exit 0' INT TERM

# The server has its own folder, home and token.
port=$(find_free_port 3000)
mkdir -p "$home/.dstack/server"
cat >"$home/.dstack/server/config.yml" <<'YAML'
projects:
  - name: main
    backends:
      - type: local
        engine: process
YAML
print_title "1. dstack server --port $port"
set -m # a separate process group, so that Ctrl-C reaches only this script
HOME=$home "$dstack" server --host 127.0.0.1 --port "$port" --default </dev/null &
server=$!
set +m
for ((i = 0; i < 200; i++)); do
	is_port_used "$port" && [ -s "$home/.dstack/config.yml" ] && break
	kill -0 "$server" 2>/dev/null || { server=; fail "the server did not start"; }
	sleep .1
done

example=examples/http-server
print_title "2. dstack apply -f service.dstack.yml -y --wait ready     in $example"
(cd "$example" && HOME=$home "$dstack" apply -f service.dstack.yml -y --wait ready --timeout 2m </dev/null) || exit

token=$(sed -n 's/^ *token: *//p' "$home/.dstack/config.yml" | tr -d '"' | head -n1)
[ -n "$token" ] || fail "no token in $home/.dstack/config.yml"
call_service() { # call_service [TOKEN] sends the request that a browser at http://http-server-service.localhost would send
	python3 - "$port" "$@" <<'PY'
import http.client, sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
headers = {"Host": "http-server-service.localhost:" + sys.argv[1]}
if len(sys.argv) > 2:
    headers["Authorization"] = "Bearer " + sys.argv[2]
connection.request("GET", "/", headers=headers)
answer = connection.getresponse()
body = answer.read().decode().strip()
print(answer.status, answer.reason)
print("  " + "\n  ".join(body.splitlines()[:8]))
sys.exit(answer.status != (200 if len(sys.argv) > 2 else 401))
PY
}
print_title "3. GET http://http-server-service.localhost:$port/ without a token"
call_service || fail "the request should have been refused with 401"
print_title "4. the same with the token"
call_service "$token" || fail "the request should have been answered with 200"

print_title 'Done: one file applied, one service ready, one call refused, one answered.'
cat <<TEXT
Try next, in another terminal:

  curl -H 'Authorization: Bearer $token' http://http-server-service.localhost:$port/
  curl -H 'Authorization: Bearer $token' http://127.0.0.1:$port/proxy/services/main/http-server-service/
  ${unset_flags:+env$unset_flags }HOME=$home $dstack ps
  ${unset_flags:+env$unset_flags }HOME=$home $dstack logs http-server-service
  http://127.0.0.1:$port/api/openapi.json
TEXT
if [ -n "${DEMO_ONCE:-}" ] || [ ! -t 0 ]; then
	exit 0
fi
print_title 'Ctrl-C stops the service and the server.'
while kill -0 "$server" 2>/dev/null; do sleep 1; done
fail "the server has stopped"
