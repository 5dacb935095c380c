#!/usr/bin/env bash
# What runs inside of a node of cluster.sh, in its own namespaces.
#
#   node.sh boot FOLDER NUMBER ADDRESS PODS CGROUP    boot, and stay
#   node.sh start-api FOLDER        start the API server, and wait until it is ready
#   node.sh start-kwok FOLDER       start kwok, which plays nodes
#   node.sh signal SIGNAL PROGRAM   send a signal to a program of the node
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin

# start NAME COMMAND... starts a program in the background, which the node's first process waits for.
start() {
	local name=$1
	shift
	setsid "$@" >>"$log/$name.log" 2>&1 </dev/null &
	echo $! >"/run/$name.pid"
}

is_running() { [ -e "/run/$1.pid" ] && [ -e "/proc/$(cat "/run/$1.pid")" ]; }

# eventually SECONDS COMMAND... repeats the command until it succeeds.
eventually() {
	local tries=$(($1 * 20))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $((tries--)) -gt 0 ] || return 1
		sleep .05
	done
}

is_api_ready() { curl -sf --max-time 2 --cacert "$dir/pki/ca.crt" "https://$API_SERVER:6443/readyz"; }

start_api() {
	local flags
	is_running apiserver && return
	read -ra flags <"$dir/api-flags"
	start apiserver "$KUBEBOX" apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address="$API_SERVER" \
		--secure-port=6443 --tls-cert-file="$dir/pki/apiserver.crt" --tls-private-key-file="$dir/pki/apiserver.key" \
		--client-ca-file="$dir/pki/ca.crt" --token-auth-file="$dir/pki/tokens.csv" --authorization-mode=Node,RBAC \
		--service-cluster-ip-range=10.96.0.0/16 --service-account-issuer=https://kubernetes.default.svc \
		--service-account-key-file="$dir/pki/sa.pub" --service-account-signing-key-file="$dir/pki/sa.key" --allow-privileged=true \
		--kubelet-client-certificate="$dir/pki/kubelet-client.crt" --kubelet-client-key="$dir/pki/kubelet-client.key" \
		--kubelet-preferred-address-types=InternalIP "${flags[@]}"
	eventually 60 is_api_ready
}

# start_control starts what only node 1 has. The controllers give up a silent node after 10 seconds, instead of 50.
start_control() {
	start etcd etcd --data-dir "$node/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster default=http://127.0.0.1:2380 --unsafe-no-fsync
	start_api || return
	start controllers "$KUBEBOX" controller-manager --kubeconfig="$dir/pki/kube-controller-manager.kubeconfig" --leader-elect=false \
		--bind-address=127.0.0.1 --service-account-private-key-file="$dir/pki/sa.key" --root-ca-file="$dir/pki/ca.crt" \
		--use-service-account-credentials=true --node-monitor-grace-period=10s --node-monitor-period=2s
	start scheduler "$KUBEBOX" scheduler --kubeconfig="$dir/pki/kube-scheduler.kubeconfig" --leader-elect=false --bind-address=127.0.0.1
	# It exists already when the node boots again.
	curl -s -o /dev/null --cacert "$dir/pki/ca.crt" -H "Authorization: Bearer $(sed -n 's/,admin,admin,.*//p' "$dir/pki/tokens.csv")" \
		-H 'Content-Type: application/json' "https://$API_SERVER:6443/apis/rbac.authorization.k8s.io/v1/clusterrolebindings" -d '{"metadata":
		{"name": "kube-proxy"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
		"subjects": [{"kind": "User", "name": "system:kube-proxy", "apiGroup": "rbac.authorization.k8s.io"}]}'
}

# start_containerd: without CAP_SYS_RESOURCE, as on machines of some clouds, only restrict_oom_score_adj lets pods start.
start_containerd() {
	cat >/run/containerd.toml <<-TOML
		version = 2
		root = "$node/containerd"
		state = "/run/containerd"
		[grpc]
		  address = "/run/containerd/containerd.sock"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "docker.io/local/pause:1"
		  restrict_oom_score_adj = true
		  disable_apparmor = true
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/usr/lib/cni"
		    conf_dir = "/run/cni"
		  [plugins."io.containerd.grpc.v1.cri".registry]
		    config_path = "$dir/certs.d"
	TOML
	cat >/run/cni/10-bridge.conflist <<-JSON
		{"cniVersion": "0.4.0", "name": "pods", "plugins": [
		  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": {"type": "host-local",
		    "dataDir": "/run/cni-addresses", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	JSON
	start containerd containerd --config /run/containerd.toml
	eventually 30 ctr -a /run/containerd/containerd.sock version || return
	[ -e "$node/imported" ] && return
	ctr -a /run/containerd/containerd.sock -n k8s.io images import "$dir/images.tar" >"$log/import.log" 2>&1 && touch "$node/imported"
}

start_proxy() {
	cat >/run/proxy.yaml <<-YAML
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: iptables
		clientConnection: {kubeconfig: $dir/pki/kube-proxy.kubeconfig}
		clusterCIDR: $CLUSTER_PODS
		hostnameOverride: k$number
		conntrack: {maxPerCore: 0, min: 0}
	YAML
	start proxy "$KUBEBOX" proxy --config=/run/proxy.yaml
}

# make_cgroups makes the node's own cgroup: kubelets that share one delete each other's pods. Groups that a power cut has
# left would make the kubelet wait 3 seconds for each of their containers.
make_cgroups() {
	local root file
	for root in /sys/fs/cgroup/*"$cgroup"; do
		[ -d "$root" ] && find "$root" -mindepth 1 -depth -type d -exec rmdir {} \; 2>/dev/null
	done
	for root in cpuset cpu cpuacct memory devices freezer blkio pids systemd; do mkdir -p "/sys/fs/cgroup/$root$cgroup"; done
	for file in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$file" >"/sys/fs/cgroup/cpuset$cgroup/cpuset.$file"; done
}

# start_kubelet: a kubelet of this version runs on cgroup v1 only when it is told to, and pulls an image again that was once
# pulled with a secret unless it is told not to.
start_kubelet() {
	cat >/run/kubelet.yaml <<-YAML
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		address: 0.0.0.0
		authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $dir/pki/ca.crt}}
		authorization: {mode: AlwaysAllow}
		cgroupDriver: cgroupfs
		cgroupRoot: $cgroup
		failCgroupV1: false
		failSwapOn: false
		containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
		evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%"}
		imageGCHighThresholdPercent: 100
		imageGCLowThresholdPercent: 99
		imagePullCredentialsVerificationPolicy: NeverVerify
		nodeStatusUpdateFrequency: 2s
	YAML
	start kubelet "$KUBEBOX" kubelet --config=/run/kubelet.yaml --kubeconfig="$dir/pki/k$number.kubeconfig" \
		--hostname-override="k$number" --node-ip="$address" --cert-dir="$node/kubelet-pki"
}

# is_node_ready asks as the node itself, which may read its own object. A heartbeat from before the boot does not count.
is_node_ready() {
	curl -sf --max-time 2 --cacert "$dir/pki/ca.crt" -H "Authorization: Bearer $(sed -n "s/,system:node:k$number,.*//p" "$dir/pki/tokens.csv")" \
		"https://$API_SERVER:6443/api/v1/nodes/k$number" >/run/node.json && tr -d ' \n' </run/node.json |
		grep -oE '"type":"Ready","status":"True","lastHeartbeatTime":"[^"]*"' | grep -oE '[0-9-]+T[0-9:]+Z' >/run/heartbeat &&
		[[ $(cat /run/heartbeat) > $booted ]]
}

boot() {
	number=$2 address=$3 pods=$4 cgroup=$5 booted=$(date -u -d '1 second ago' +%FT%TZ)
	hostname "k$number"
	mount -t proc proc /proc
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p /run/netns /run/lock /run/cni /var/lib/kubelet /var/log/pods /var/log/containers
	mkdir -p "$node"/{containerd,kubelet-pki,kubelet,pods,containers}
	mount --bind "$node/kubelet" /var/lib/kubelet
	mount --bind "$node/pods" /var/log/pods
	mount --bind "$node/containers" /var/log/containers
	sysctl -qw net.ipv4.ip_forward=1
	[ "$number" = 1 ] && start_control &
	start_containerd || { echo "containerd does not start" && exit 1; }
	eventually 90 is_api_ready || { echo "the API server does not answer" && exit 1; }
	start_proxy
	make_cgroups
	start_kubelet
	eventually 90 is_node_ready && touch /run/ready
	exec sleep infinity
}

# start_kwok: its rules lie beside the program.
start_kwok() {
	local flags=() stage
	for stage in "$(dirname "$KWOK")"/kwok-stages/*.yaml; do flags+=(--config "$stage"); done
	start kwok "$KWOK" --kubeconfig="$dir/kubeconfig" --manage-all-nodes=false \
		--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake --node-lease-duration-seconds=40 "${flags[@]}"
}

dir=${2:-} node=$dir/k1 log=$dir/k1/log
case $1 in
boot) node=$dir/k$3 log=$dir/k$3/log && shift && boot "$@" ;;
start-api) start_api ;;
start-kwok) start_kwok ;;
signal)
	kill "-$2" "$(cat "/run/$3.pid")" || exit
	[ "$2" != KILL ] || eventually 10 bash -c "! [ -e /proc/$(cat "/run/$3.pid") ]"
	;;
esac
