#!/usr/bin/env bash
# What runs inside of a host of fleet.sh, in its own namespaces.
#
#   host.sh NUMBER FOLDER NETWORK CGROUP    boot, and stay
#   host.sh start-docker CGROUP             start the Docker Engine, and wait until it answers
#   host.sh stop-docker SIGNAL              end it, and wait until it has ended
set -uo pipefail
unset "${!DOCKER_@}" # a DOCKER_HOST would be used on the hosts, too
PATH=$PATH:/usr/sbin:/sbin

# start_docker leaves the engine to the host's first process, which waits for it when it ends.
start_docker() {
	setsid dockerd --bip 10.200.0.1/24 --default-address-pool base=10.201.0.0/16,size=24 --cgroup-parent "$1" \
		--exec-opt native.cgroupdriver=cgroupfs --group docker --insecure-registry 10.213.0.0/16 >>/root/dockerd.log 2>&1 </dev/null &
	local tries
	for ((tries = 0; tries < 300; tries++)); do
		docker version >/dev/null 2>&1 && return
		sleep .1
	done
	return 1
}

stop_docker() {
	local pid tries
	pid=$(cat /run/docker.pid) && [ "$pid" -gt 1 ] || return 1
	kill "-$1" "$pid"
	for ((tries = 0; tries < 400; tries++)); do
		kill -0 "$pid" 2>/dev/null || { rm -f /run/docker.pid && return; }
		sleep .05
	done
	return 1
}

boot() {
	local number=$1 folder=$2 network=$3
	hostname "h$number"
	mount -t proc proc /proc
	mkdir -p "$folder/run"
	mount -t tmpfs -o mode=755 tmpfs "$folder/run"
	mkdir -p "$folder/run/sshd" "$folder/run/lock" "$folder/run/sudo"
	mount --bind "$folder/run" /run
	mkdir -p /var/lib/docker
	mount --bind "$folder/docker" /var/lib/docker
	mount --bind "$folder/etc" /etc
	mount --bind "$folder/home" /home
	mount --bind "$folder/root" /root
	local key=/etc/fleet_host_key authorized=/etc/fleet_authorized_keys pam=no
	if [ -e /etc/fleet_cloud ]; then # what setup scripts leave in /var/lib is this host's only
		key=/etc/ssh/ssh_host_ed25519_key authorized=.ssh/authorized_keys pam=yes
		mkdir -p /run/state/upper /run/state/work
		mount -t overlay -o lowerdir=/var/lib,upperdir=/run/state/upper,workdir=/run/state/work overlay /var/lib
		mount --bind "$folder/docker" /var/lib/docker
		mkdir -p /dev/disk && mount -t tmpfs -o mode=755 tmpfs /dev/disk # names of the disks that the cloud attaches
	fi
	cat >/run/sshd_config <<-CONFIG
		ListenAddress 0.0.0.0:22
		ListenAddress 0.0.0.0:2222
		HostKey $key
		PidFile /run/sshd.pid
		PermitRootLogin prohibit-password
		PasswordAuthentication no
		KbdInteractiveAuthentication no
		UsePAM $pam
		AuthorizedKeysFile $authorized
		StrictModes no
		Subsystem sftp internal-sftp
	CONFIG
	/usr/sbin/sshd -f /run/sshd_config -E /root/sshd.log
	bash "$0" start-docker "$4"
	exec sleep infinity
}

case $1 in
start-docker) start_docker "$2" ;;
stop-docker) stop_docker "$2" ;;
*) boot "$@" ;;
esac
