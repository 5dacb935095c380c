#!/usr/bin/env bash
# A real Kubernetes cluster on one Linux machine, for tests. Each node has its own network, processes, host name, containerd
# and kubelet; node 1 also has etcd, the API server, the controllers and the scheduler. They share the programs and the
# kernel of the machine, and its CPUs and memory. Several clusters run beside each other.
#
#   cluster.sh up NODE...            boot nodes, numbered from 1, and wait until they are Ready
#   cluster.sh crash NODE...         power cut: every process of the node is killed; `up` boots it again, with its disk
#   cluster.sh unplug NODE...        pull the network cable; `plug` puts it back
#   cluster.sh stop-api              kill the API server; `start-api` starts it again
#   cluster.sh freeze-api            stop the API server in the middle of what it does; `thaw-api` lets it go on
#   cluster.sh mend NODE...          undo all of the above, whatever was done
#   cluster.sh import NODE TAR       load images, as `docker save` writes them, into a node
#   cluster.sh load NAME LAYER       load an image of one layer, a tar of a root file system, into all nodes
#   cluster.sh registry NAME URL     let the nodes pull images of the registry NAME from a URL that they reach
#   cluster.sh fake-nodes FIRST LAST [CPUS MEMORY GPUS]    add nodes fake-N that kwok plays, with its program in $KWOK
#   cluster.sh run NODE COMMAND...   run a command on a node
#   cluster.sh api METHOD PATH [JSON [TYPE]]    make a request as the administrator
#   cluster.sh down                  kill all nodes and remove their networks; nothing is left but the folder
#
# CLUSTER_DIR is the folder of one cluster, and KUBEBOX the program that scripts/pieces.sh builds from tools/kubebox. The
# folder's files are for tests: `kubeconfig` (an administrator's), `network` (the first three numbers of the nodes'
# addresses: node 1 is at NETWORK.11, and this machine NETWORK.1), and `images.tar`, which each node loads when it boots for
# the first time: docker.io/local/pause:1 and docker.io/local/busybox:1. CLUSTER_API_FLAGS are more flags of the API server.
#
# This machine reaches the pods of the nodes, and the nodes and pods reach this machine, but nothing beyond it.
#
# It needs root, Linux with cgroup v1, and the packages etcd-server, containerd, runc, containernetworking-plugins, iproute2,
# iptables, openssl, curl, tini,
# busybox-static.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${CLUSTER_DIR:?the folder of the cluster}
PATH=$PATH:/usr/sbin:/sbin

fail() { echo "cluster.sh: $*" >&2 && exit 1; }

# read_network sets what follows from the number of the cluster. The names of network devices have at most 15 characters.
read_network() {
	network=$(cat "$dir/network") && number=${network##*.} bridge=dsk$number
	pods=10.$((224 + number / 16)) first_pods=$((number % 16 * 16)) # a /20 of pods: node i has the i-th /24 of it
	export CLUSTER_PODS=$pods.$first_pods.0/20 API_SERVER=$network.11
}
address_of() { echo "$network.$((10 + $1))"; }
pods_of() { echo "$pods.$((first_pods + $1)).0/24"; }

# make_network makes a bridge. Its name is free on the machine, so other clusters can run beside this one.
make_network() {
	mkdir -p "$dir/certs.d" && chmod 711 "$dir"
	[ -e "$dir/network" ] && return
	local tries
	for ((tries = 0; tries < 100; tries++)); do
		number=$((RANDOM % 250 + 1)) network=10.214.$number bridge=dsk$number
		ip -4 route show root "$network.0/24" | grep -q . && continue
		ip link add "$bridge" type bridge 2>/dev/null && break
	done
	ip addr add "$network.1/24" dev "$bridge" && ip link set "$bridge" up || fail "cannot make a bridge"
	echo "$network" >"$dir/network"
	# A Docker Engine on this machine drops what it does not know. What would leave this machine is refused at once.
	iptables -w -I FORWARD -i "$bridge" -j REJECT
	iptables -w -I FORWARD -i "$bridge" -o "$bridge" -j ACCEPT
	make_keys
	make_images
	echo "${CLUSTER_API_FLAGS:-}" >"$dir/api-flags"
}

# make_certificate NAME SUBJECT [ALTERNATIVE-NAMES] makes a key and a certificate of the cluster's authority.
make_certificate() {
	local name=$1 extensions="extendedKeyUsage=serverAuth,clientAuth"
	[ $# -gt 2 ] && extensions+=$'\n'"subjectAltName=$3"
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$name.key" -out "$name.csr" -subj "$2" &&
		openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out "$name.crt" -extfile <(echo "$extensions")
}

# make_keys makes the certificates and tokens of the cluster, and a kubeconfig for each of its users.
make_keys() {
	mkdir -p "$dir/pki"
	(
		cd "$dir/pki" && exec 2>>"$dir/pki/log" || exit
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 365 -subj /CN=test-ca \
			-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign || exit
		make_certificate apiserver /CN=kube-apiserver \
			"DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1,IP:$network.11" || exit
		make_certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client || exit
		openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out sa.key && openssl pkey -in sa.key -pubout -out sa.pub
	) || fail "cannot make keys: $(tail -n1 "$dir/pki/log")"
	local user i
	for user in admin:system:masters system:kube-controller-manager system:kube-scheduler system:kube-proxy; do
		make_user "${user%:system:masters}" "${user#"${user%:system:masters}"}"
	done
	for ((i = 1; i < 16; i++)); do make_user "system:node:k$i" :system:nodes; done
	chmod 600 "$dir"/pki/*.kubeconfig && cp "$dir/pki/admin.kubeconfig" "$dir/kubeconfig"
}

# make_user NAME [:GROUP] gives a user a token of random numbers.
make_user() {
	local token file=${1##*:}
	token=$(tr -d - </proc/sys/kernel/random/uuid)
	echo "$token,$1,$1${2:+,\"${2#:}\"}" >>"$dir/pki/tokens.csv"
	cat >"$dir/pki/$file.kubeconfig" <<-YAML
		apiVersion: v1
		kind: Config
		clusters: [{name: test, cluster: {server: "https://$network.11:6443", certificate-authority-data: $(base64 -w0 "$dir/pki/ca.crt")}}]
		users: [{name: $file, user: {token: $token}}]
		contexts: [{name: test, context: {cluster: test, user: $file}}]
		current-context: test
	YAML
}

# call_api METHOD PATH [JSON [TYPE]]
call_api() {
	local token
	token=$(sed -n 's/^\(.*\),admin,admin,.*/\1/p' "$dir/pki/tokens.csv")
	curl -sS --max-time 10 --fail-with-body --cacert "$dir/pki/ca.crt" -H "Authorization: Bearer $token" -X "$1" \
		${3:+-H "Content-Type: ${4:-application/json}" --data-binary "$3"} "https://$API_SERVER:6443$2"
}

make_node() {
	local i=$1 ns=$bridge-k$1 j
	mkdir -p "$dir/k$i/log"
	[ -e "/run/netns/$ns" ] && return
	ip netns add "$ns"
	ip link add "$bridge-$i" type veth peer name eth0 netns "$ns"
	ip link set "$bridge-$i" master "$bridge" up
	ip -n "$ns" link set lo up
	ip -n "$ns" addr add "$(address_of "$i")/24" dev eth0
	ip -n "$ns" link set eth0 up
	ip -n "$ns" route add default via "$network.1"
	for ((j = 1; j < 16; j++)); do
		[ "$j" = "$i" ] || ip -n "$ns" route add "$(pods_of "$j")" via "$(address_of "$j")"
	done
	ip route replace "$(pods_of "$i")" via "$(address_of "$i")"
}

# boot_node starts a node. `nsenter` keeps /sys/fs/cgroup, which `ip netns exec` hides.
boot_node() {
	local i=$1 node=$dir/k$1
	is_up "$i" && return
	setsid nsenter --net="/run/netns/$bridge-k$i" unshare --mount --uts --ipc --pid --fork --kill-child --propagation private \
		tini -s -- bash "$here/node.sh" boot "$dir" "$i" "$(address_of "$i")" "$(pods_of "$i")" "/$bridge-k$i" >>"$node/log/init.log" 2>&1 </dev/null &
	echo $! >"$node/pid"
}

# is_up checks that the process is still this node's: another one may have got its number.
is_up() {
	local pid
	pid=$(cat "$dir/k$1/pid" 2>/dev/null) && [ "${pid:-0}" -gt 1 ] && grep -qsF "/$bridge-k$1" "/proc/$pid/cmdline"
}

# await_nodes NODE... waits until their kubelets have said that they are ready since their boot.
await_nodes() {
	local i tries
	for i; do
		for ((tries = 0; ; tries++)); do
			[ $tries -lt 900 ] || fail "node $i does not become ready: $(tail -qn1 "$dir/k$i"/log/*.log)"
			on_node "$i" test -e /run/ready 2>/dev/null && break
			sleep .1
		done
	done
}

# on_node NODE COMMAND... runs a command in the namespaces of a node's first process, which is the child of unshare.
on_node() {
	local pid init
	is_up "$1" || return 1
	pid=$(cat "$dir/k$1/pid")
	read -r init _ <"/proc/$pid/task/$pid/children"
	[ "${init:-0}" -gt 1 ] && [ "$(readlink "/proc/$init/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] || return 1
	shift
	nsenter --target "$init" --mount --uts --ipc --net --pid -- "$@"
}

crash_node() {
	local pid tries
	is_up "$1" || return 0
	pid=$(cat "$dir/k$1/pid")
	kill -9 "$pid" 2>/dev/null
	for ((tries = 0; tries < 200; tries++)); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep .05
	done
}

# write_image NAME LAYER CONFIG adds an image of one layer to the folder $images, in the format of `docker save`.
write_image() {
	local id config
	mkdir -p "$images" && ln -f "$2" "$images/layer.part" 2>/dev/null || cp "$2" "$images/layer.part" || return
	id=$(sha256sum <"$2" | cut -d' ' -f1) && mv "$images/layer.part" "$images/$id.tar"
	printf '{"architecture": "amd64", "os": "linux", "config": {%s}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' "$3" "$id" >"$images/config.part"
	config=$(sha256sum <"$images/config.part" | cut -d' ' -f1).json && mv "$images/config.part" "$images/$config"
	printf '{"Config": "%s", "RepoTags": ["%s"], "Layers": ["%s"]}\n' "$config" "$1" "$id.tar" >>"$images/manifest"
}

# pack_images TAR packs the images of the folder $images.
pack_images() { (cd "$images" && printf '[%s]' "$(paste -sd, manifest)" >manifest.json && rm manifest && tar -cf "$1" -- *.json *.tar) && rm -rf "$images"; }

# make_images makes the images that each node has: what keeps the network of a pod, and busybox.
make_images() {
	[ -e "$dir/images.tar" ] && return
	local images=$dir/images layers=$dir/layers name
	mkdir -p "$layers"/pause/bin "$layers"/busybox/{bin,etc,www,tmp,proc,sys,dev,root} && chmod 1777 "$layers/busybox/tmp"
	cp "$(command -v tini-static)" "$layers/pause/bin/tini" && cp "$(command -v busybox)" "$layers/pause/bin/busybox" &&
		cp "$(command -v busybox)" "$layers/busybox/bin/" || fail "the packages tini and busybox-static are needed"
	for name in $(busybox --list); do [ "$name" = busybox ] || ln -s busybox "$layers/busybox/bin/$name"; done
	printf 'root:x:0:0:root:/root:/bin/sh\n' >"$layers/busybox/etc/passwd" && printf 'root:x:0:\n' >"$layers/busybox/etc/group"
	echo "hello from container" >"$layers/busybox/www/index.html"
	tar -C "$layers/pause" -cf "$layers/pause.tar" . && tar -C "$layers/busybox" -cf "$layers/busybox.tar" .
	write_image local/pause:1 "$layers/pause.tar" '"Entrypoint": ["/bin/tini", "-s", "--", "/bin/busybox", "sleep", "infinity"]'
	write_image local/busybox:1 "$layers/busybox.tar" '"Env": ["PATH=/bin"], "Cmd": ["httpd", "-f", "-v", "-p", "8080", "-h", "/www"]'
	pack_images "$dir/images.part" && mv "$dir/images.part" "$dir/images.tar" && rm -rf "$layers"
}

# load_layer NAME LAYER loads an image of one layer into all nodes.
load_layer() {
	local images tar node status=0
	images=$(mktemp -d "$dir/image.XXXXXX") tar=$(mktemp "$dir/image-tar.XXXXXX")
	write_image "$1" "$2" '"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]' && pack_images "$tar" || return
	for node in "$dir"/k[0-9]*; do import_images "${node##*/k}" "$tar" || status=1; done
	rm -f "$tar"
	return $status
}

# import_images NODE TAR
import_images() { on_node "$1" ctr -a /run/containerd/containerd.sock -n k8s.io images import "$2"; }

# add_registry NAME URL: containerd reads the file at each pull.
add_registry() {
	mkdir -p "$dir/certs.d/$1"
	printf 'server = "%s"\n[host."%s"]\n  capabilities = ["pull", "resolve"]\n' "$2" "$2" >"$dir/certs.d/$1/hosts.toml"
}

# add_fake_nodes FIRST LAST [CPUS MEMORY GPUS]
add_fake_nodes() {
	local i gpus=
	on_node 1 test -e /run/kwok.pid || on_node 1 bash "$here/node.sh" start-kwok "$dir" || fail "kwok does not start: $(tail -n1 "$dir/k1/log/kwok.log")"
	[ "${5:-0}" != 0 ] && gpus=", \"nvidia.com/gpu\": \"$5\""
	for ((i = $1; i <= $2; i++)); do
		printf '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fake-%s", "annotations": {"kwok.x-k8s.io/node": "fake"},
			"labels": {"kubernetes.io/hostname": "fake-%s", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "type": "kwok"}},
			"status": {"capacity": {"cpu": "%s", "memory": "%s", "pods": "110", "ephemeral-storage": "1Ti"%s},
			"allocatable": {"cpu": "%s", "memory": "%s", "pods": "110", "ephemeral-storage": "1Ti"%s}}}' \
			"$i" "$i" "${3:-32}" "${4:-256Gi}" "$gpus" "${3:-32}" "${4:-256Gi}" "$gpus" | call_api POST /api/v1/nodes @- >/dev/null || fail "cannot add fake-$i"
	done
}

remove_node() {
	local i=$1 group
	crash_node "$i"
	ip netns del "$bridge-k$i" 2>/dev/null
	ip link del "$bridge-$i" 2>/dev/null
	ip route del "$(pods_of "$i")" 2>/dev/null
	for group in /sys/fs/cgroup/*/"$bridge-k$i"; do
		[ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
	done
	return 0
}

remove_all() {
	local node
	[ -e "$dir/network" ] || return 0
	for node in "$dir"/k[0-9]*; do [ -d "$node" ] && remove_node "${node##*/k}"; done
	iptables -w -D FORWARD -i "$bridge" -o "$bridge" -j ACCEPT 2>/dev/null
	iptables -w -D FORWARD -i "$bridge" -j REJECT 2>/dev/null
	ip link del "$bridge" 2>/dev/null
	rm -f "$dir/network"
}

command=${1:-}
[ $# -gt 0 ] && shift
[ "$command" = up ] && { : "${KUBEBOX:?the program of tools/kubebox}" && make_network; }
[ -e "$dir/network" ] && read_network
case $command in
up)
	for i; do make_node "$i" && boot_node "$i"; done
	await_nodes "$@"
	;;
crash) for i; do crash_node "$i"; done ;;
unplug) for i; do ip link set "$bridge-$i" down; done ;;
plug) for i; do ip link set "$bridge-$i" up; done ;;
stop-api) on_node 1 bash "$here/node.sh" signal KILL apiserver ;;
start-api) on_node 1 bash "$here/node.sh" start-api "$dir" ;;
freeze-api) on_node 1 bash "$here/node.sh" signal STOP apiserver ;;
thaw-api) on_node 1 bash "$here/node.sh" signal CONT apiserver ;;
mend)
	for i; do ip link set "$bridge-$i" up && boot_node "$i"; done
	on_node 1 bash "$here/node.sh" signal CONT apiserver 2>/dev/null # it may have been killed
	if on_node 1 test -e /run/ready; then on_node 1 bash "$here/node.sh" start-api "$dir" || fail "the API server does not start"; fi
	await_nodes "$@"
	;;
import) import_images "$@" ;;
load) load_layer "$@" ;;
registry) add_registry "$@" ;;
fake-nodes) add_fake_nodes "$@" ;;
run) on_node "$@" ;;
api) call_api "$@" ;;
down) remove_all ;;
*) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' && exit 2 ;;
esac
