#!/usr/bin/env bash
# Real SSH hosts on one Linux machine, for tests. Each has its own network, processes, host name, /etc, /root, sshd and
# Docker Engine. They share the programs and the kernel of the machine, and its CPUs and memory.
#
#   fleet.sh up HOST...          boot hosts, numbered from 1; `up` after `crash` boots a host again, with its disk
#   fleet.sh crash HOST...       power cut: every process of the host is killed
#   fleet.sh unplug HOST...      pull the network cable; `plug` puts it back
#   fleet.sh stop-sshd HOST      kill its sshd with all connections; `start-sshd` starts it again
#   fleet.sh stop-docker HOST    stop its Docker Engine as an upgrade does; `start-docker` starts it again
#   fleet.sh kill-docker HOST    kill its Docker Engine; the containers run on
#   fleet.sh new-key HOST        give its sshd another host key
#   fleet.sh hide-docker HOST    take the docker command away, and the engine with it; `show-docker` undoes it
#   fleet.sh bind HOST FOLDER TARGET    show a folder at another path, on this host only; `unbind HOST TARGET` undoes it
#   fleet.sh run HOST COMMAND... run a command on the host, without SSH
#   fleet.sh ssh HOST [COMMAND]  the same through SSH, as root
#   fleet.sh remove HOST...      kill hosts and delete their disks: the next `up` boots new ones
#   fleet.sh down                kill all hosts and remove their networks; nothing is left but the folder
#
# FLEET_DIR is the folder of one set of hosts. Its file `network` has the first three numbers of their addresses: host 1 is
# at NETWORK.11 and also at NETWORK.111, host 2 at NETWORK.12; this machine is NETWORK.1 to them. Port 22 is open to all,
# port 2222 to the other hosts only, so that it is reached through one of them. `id` is the private key of these users:
#
#   root          may use Docker
#   worker        is in the group docker
#   sudoer        may run docker with sudo, without a password
#   guest         may use Docker in no way
#
# With FLEET_CLOUD=yes, `up` boots a host as a cloud boots its image: it has new host keys, nobody can log in before its user
# data was run, and 169.254.169.254 is its own, for a metadata service that a test brings.
#
# It needs root, Linux, and the packages docker.io, openssh-server, openssh-client, sudo, iproute2, iptables, tini, procps.
set -uo pipefail
unset "${!DOCKER_@}" # a DOCKER_HOST would be used on the hosts, too
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${FLEET_DIR:?the folder of the hosts}
PATH=$PATH:/usr/sbin:/sbin

fail() { echo "fleet.sh: $*" >&2 && exit 1; }

# The names of network devices have at most 15 characters.
read_network() { network=$(cat "$dir/network") && number=${network##*.} bridge=dsf$number; }
address_of() { echo "$network.$((10 + $1))"; }

# make_network makes a bridge. Its name is free on the machine, so other sets of hosts can run beside this one.
make_network() {
	mkdir -p "$dir" && chmod 711 "$dir"
	[ -e "$dir/network" ] && return
	local tries
	for ((tries = 0; tries < 100; tries++)); do
		number=$((RANDOM % 250 + 1)) network=10.213.$number bridge=dsf$number
		ip -4 route show root "$network.0/24" | grep -q . && continue
		ip link add "$bridge" type bridge 2>/dev/null && break
	done
	ip addr add "$network.1/24" dev "$bridge" && ip link set "$bridge" up || fail "cannot make a bridge"
	echo "$network" >"$dir/network"
	# A Docker Engine on this machine drops what it does not know.
	iptables -w -I FORWARD -i "$bridge" -o "$bridge" -j ACCEPT
	[ -e "$dir/id" ] || ssh-keygen -q -t ed25519 -N '' -C fleet -f "$dir/id"
	printf '%s\n' "Host *" " User root" " IdentityFile $dir/id" " IdentitiesOnly yes" " UserKnownHostsFile $dir/known_hosts" \
		" GlobalKnownHostsFile /dev/null" " BatchMode yes" " ConnectTimeout 5" " LogLevel ERROR" >"$dir/ssh_config"
}

# add_known_host writes the key of a host for the ssh command.
add_known_host() {
	local name
	for name in "$(address_of "$1")" "$network.$((110 + $1))" "[$(address_of "$1")]:2222"; do
		grep -qsF "$name " "$dir/known_hosts" || echo "$name $(cut -d' ' -f1,2 "$dir/h$1/etc/fleet_host_key.pub")" >>"$dir/known_hosts"
	done
}

make_host() {
	local i=$1 h=$dir/h$1 ns=$bridge-h$1
	mkdir -p "$h/root" "$h/home" "$h/docker"
	if [ ! -e "$h/etc" ]; then
		cp -a /etc "$h/etc"
		make_users "$h"
		ssh-keygen -q -t ed25519 -N '' -C "h$i" -f "$h/etc/fleet_host_key"
		cp "$dir/id.pub" "$h/etc/fleet_authorized_keys"
		tr -d - </proc/sys/kernel/random/uuid >"$h/etc/machine-id"
		rm -rf "$h/etc/docker" && mkdir "$h/etc/docker" # a copied key.json would give all engines the same ID
		printf '127.0.0.1 localhost h%s\n' "$i" >"$h/etc/hosts"
		[ "${FLEET_CLOUD:-}" = yes ] && make_cloud_image "$h"
	fi
	add_known_host "$i"
	# In memory, so that it is quick and small: a test can fill it. It outlives the host, as a disk does.
	mountpoint -q "$h/docker" || mount -t tmpfs -o "size=${FLEET_DISK:-600m}" tmpfs "$h/docker"
	[ -e "/run/netns/$ns" ] && return
	ip netns add "$ns"
	ip link add "$bridge-$i" type veth peer name eth0 netns "$ns"
	ip link set "$bridge-$i" master "$bridge" up
	ip -n "$ns" link set lo up
	ip -n "$ns" addr add "$(address_of "$i")/24" dev eth0
	ip -n "$ns" addr add "$network.$((110 + i))/24" dev eth0
	ip -n "$ns" link set eth0 up
	ip -n "$ns" route add default via "$network.1"
	[ -e "$h/etc/fleet_cloud" ] && ip -n "$ns" addr add 169.254.169.254/32 dev lo
	nsenter --net="/run/netns/$ns" iptables -w -A INPUT -s "$network.1" -p tcp --dport 2222 -j REJECT --reject-with tcp-reset
}

# make_cloud_image FOLDER makes a copy of /etc that of an image: with keys of its own, and without anybody's public key.
make_cloud_image() {
	rm -f "$1/etc/ssh"/ssh_host_* "$1/etc/fleet_authorized_keys"
	mkdir -p "$1/etc/ssh" "$1/etc/sudoers.d"
	ssh-keygen -q -t ed25519 -N '' -C image -f "$1/etc/ssh/ssh_host_ed25519_key"
	printf '@includedir /etc/sudoers.d\n' >>"$1/etc/sudoers"
	touch "$1/etc/fleet_cloud"
}

# make_users FOLDER adds the users to a copy of /etc. sshd refuses users whose password is locked.
make_users() {
	local etc=$1/etc name id=4300 docker
	grep -q '^docker:' "$etc/group" || echo 'docker:x:4299:' >>"$etc/group"
	docker=$(awk -F: '$1 == "docker" { print $3 }' "$etc/group")
	for name in worker sudoer guest; do
		id=$((id + 1))
		echo "$name:x:$id:$id::/home/$name:/bin/bash" >>"$etc/passwd"
		echo "$name:*:20000:0:99999:7:::" >>"$etc/shadow"
		echo "$name:x:$id:" >>"$etc/group"
		mkdir -p "$1/home/$name" && chown "$id:$id" "$1/home/$name"
	done
	sed -i "s/^docker:x:$docker:.*/docker:x:$docker:worker/" "$etc/group"
	printf '%s\n' 'Defaults env_reset' 'root ALL=(ALL:ALL) ALL' \
		"sudoer ALL=(root) NOPASSWD: $(which -a docker | paste -sd,)" >"$etc/sudoers"
	chmod 440 "$etc/sudoers"
}

# boot_host starts a host. `nsenter` keeps /sys/fs/cgroup, which `ip netns exec` hides.
boot_host() {
	local h=$dir/h$1
	is_up "$1" && return
	setsid nsenter --net="/run/netns/$bridge-h$1" unshare --mount --uts --ipc --pid --fork --kill-child --propagation private \
		tini -s -- bash "$here/host.sh" "$1" "$h" "$network" "/$bridge-h$1" >>"$h/init.log" 2>&1 </dev/null &
	echo $! >"$h/pid"
}

# is_up checks that the process is still this host's: another one may have got its number.
is_up() {
	local pid
	pid=$(cat "$dir/h$1/pid" 2>/dev/null) && [ "${pid:-0}" -gt 1 ] && grep -qsF "$dir/h$1" "/proc/$pid/cmdline"
}

await_host() {
	local tries
	for ((tries = 0; tries < 300; tries++)); do
		on_host "$1" docker version >/dev/null 2>&1 && return
		sleep .1
	done
	fail "host $1 does not start: $(tail -n3 "$dir/h$1"/*.log)"
}

# on_host HOST COMMAND... runs a command in the namespaces of a host's first process, which is the child of unshare.
on_host() {
	local pid init
	is_up "$1" || return 1
	pid=$(cat "$dir/h$1/pid")
	read -r init _ <"/proc/$pid/task/$pid/children"
	[ "${init:-0}" -gt 1 ] && [ "$(readlink "/proc/$init/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] || return 1
	shift
	nsenter --target "$init" --mount --uts --ipc --net --pid -- "$@"
}

crash_host() {
	local pid tries
	is_up "$1" || return 0
	pid=$(cat "$dir/h$1/pid")
	kill -9 "$pid" 2>/dev/null
	for ((tries = 0; tries < 100; tries++)); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep .05
	done
}

docker_folders() { for program in $(which -a docker); do realpath "$(dirname "$program")"; done | sort -u; }

# kill_sshd names processes of the host only, because it has its own process IDs.
kill_sshd() { on_host "$1" pkill -KILL -x sshd; }
start_sshd() { on_host "$1" /usr/sbin/sshd -f /run/sshd_config -E /root/sshd.log; }
restart_sshd() { kill_sshd "$1" && start_sshd "$1"; }

remove_host() {
	local i=$1 group tries
	crash_host "$i"
	ip netns del "$bridge-h$i" 2>/dev/null
	ip link del "$bridge-$i" 2>/dev/null
	for ((tries = 0; tries < 50; tries++)); do # until the last process has let go
		umount "$dir/h$i/docker" 2>/dev/null
		mountpoint -q "$dir/h$i/docker" || break
		sleep .1
	done
	for group in /sys/fs/cgroup/*/"$bridge-h$i" /sys/fs/cgroup/"$bridge-h$i"; do
		[ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
	done
	return 0
}

remove_all() {
	local h
	[ -e "$dir/network" ] || return 0
	for h in "$dir"/h*; do [ -d "$h" ] && remove_host "${h##*/h}"; done
	iptables -w -D FORWARD -i "$bridge" -o "$bridge" -j ACCEPT 2>/dev/null
	ip link del "$bridge" 2>/dev/null
	rm -f "$dir/network"
}

command=${1:-}
[ $# -gt 0 ] && shift
[ "$command" = up ] && make_network
[ -e "$dir/network" ] && read_network
case $command in
up)
	for i; do make_host "$i" && boot_host "$i"; done
	for i; do await_host "$i"; done
	;;
remove) for i; do remove_host "$i" && rm -rf "${dir:?}/h$i"; done ;;
crash) for i; do crash_host "$i"; done ;;
unplug) for i; do ip link set "$bridge-$i" down; done ;;
plug) for i; do ip link set "$bridge-$i" up; done ;;
stop-sshd) kill_sshd "$1" ;;
start-sshd) start_sshd "$1" ;;
stop-docker) on_host "$1" bash "$here/host.sh" stop-docker TERM ;;
kill-docker) on_host "$1" bash "$here/host.sh" stop-docker KILL ;;
start-docker) on_host "$1" bash "$here/host.sh" start-docker "/$bridge-h$1" ;;
new-key)
	on_host "$1" bash -c "rm /etc/fleet_host_key* && ssh-keygen -q -t ed25519 -N '' -f /etc/fleet_host_key" && restart_sshd "$1"
	sed -i "/^\[\?$network\.$((10 + $1))[] ]/d; /^$network\.$((110 + $1)) /d" "$dir/known_hosts" && add_known_host "$1"
	;;
hide-docker)
	on_host "$1" bash "$here/host.sh" stop-docker TERM
	on_host "$1" rm -f /run/docker.sock
	for folder in $(docker_folders); do # a layer over the folder, in this host only
		on_host "$1" bash -c 'layer=/run/hidden$0 && rm -rf $layer && mkdir -p $layer/upper $layer/work &&
			mount -t overlay -o lowerdir=$0,upperdir=$layer/upper,workdir=$layer/work overlay $0 && rm $0/docker' "$folder"
	done
	;;
show-docker)
	for folder in $(docker_folders); do on_host "$1" umount -l "$folder"; done
	on_host "$1" bash "$here/host.sh" start-docker "/$bridge-h$1"
	;;
bind) on_host "$1" mount --bind "$2" "$3" ;;
unbind) on_host "$1" umount -l "$2" ;;
run) on_host "$@" ;;
ssh) i=$1 && shift && ssh -F "$dir/ssh_config" "$(address_of "$i")" "$@" ;;
down) remove_all ;;
*) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' && exit 2 ;;
esac
