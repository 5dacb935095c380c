# Prepares a rented machine for dstack: a user that the server logs in as, Docker, and what containers need to use GPUs. It is
# a shell script for root that runs once, at the first boot, and may run again. Before it come the variables
#   user             who logs in
#   authorized       lines of authorized_keys
#   host_key         the private key that this machine proves itself with, and host_key_public
#   gpus             nvidia, amd or another maker; empty: there are none
# How far it is, is in /var/lib/dstack/setup: "running WHAT", "done" or "failed: WHY".
set -u
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH DEBIAN_FRONTEND=noninteractive
state=/var/lib/dstack
metadata=169.254.169.254
umask 022
mkdir -p "$state"

report() { printf '%s\n' "$1" >"$state/setup.new" && mv -f "$state/setup.new" "$state/setup"; }
fail() {
	report "failed: $1"
	exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# try runs a command up to five times. Its last line of output explains the failure.
try() {
	what=$1
	shift
	for pause in 2 5 10 20 0; do
		"$@" >"$state/output" 2>&1 && return
		sleep "$pause"
	done
	fail "$what: $(grep -v '^[[:space:]]*$' "$state/output" | tail -n 1 | cut -c 1-300)"
}

set_host_key() {
	(
		umask 077
		printf '%s\n' "$host_key" >/etc/ssh/ssh_host_ed25519_key.new
	) && printf '%s\n' "$host_key_public" >/etc/ssh/ssh_host_ed25519_key.pub || fail "its host key cannot be written"
	mv -f /etc/ssh/ssh_host_ed25519_key.new /etc/ssh/ssh_host_ed25519_key
	if has systemctl && [ -d /run/systemd/system ]; then
		systemctl try-restart ssh.service sshd.service >/dev/null 2>&1
	elif [ -s /run/sshd.pid ]; then
		kill -HUP "$(cat /run/sshd.pid)"
	fi
}

add_user() {
	if ! id "$user" >/dev/null 2>&1; then
		useradd --create-home --shell "$(command -v bash || echo /bin/sh)" "$user" || fail "the user $user cannot be added"
	fi
	home=$(getent passwd "$user" | cut -d : -f 6)
	mkdir -p "$home/.ssh" && printf '%s\n' "$authorized" >"$home/.ssh/authorized_keys" || fail "the key of $user cannot be written"
	chmod 700 "$home/.ssh" && chmod 600 "$home/.ssh/authorized_keys" && chown -R "$user:" "$home/.ssh" || fail "the key of $user cannot be written"
	if [ -d /etc/sudoers.d ]; then
		printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$user" >/etc/sudoers.d/90-dstack && chmod 440 /etc/sudoers.d/90-dstack
	fi
}

update_packages() { apt-get -q -o DPkg::Lock::Timeout=300 update; }

# install installs packages, by the names that the system has for them.
install() {
	if has apt-get; then
		apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@"
	elif has dnf; then
		dnf -q -y install "$@"
	elif has yum; then
		yum -q -y install "$@"
	else
		echo "there is no apt-get, dnf or yum"
		return 1
	fi
}

start_docker() {
	if has systemctl && [ -d /run/systemd/system ]; then
		systemctl enable docker >/dev/null 2>&1
		try "Docker does not start" systemctl start docker
	fi
	try "Docker does not answer" docker version
}

add_docker() {
	if ! has docker; then
		report "running: installs Docker"
		if has apt-get; then
			try "the list of packages cannot be read" update_packages
			try "Docker cannot be installed" install docker.io iptables
		else
			try "Docker cannot be installed" install docker iptables
		fi
	fi
	start_docker
	getent group docker >/dev/null || groupadd docker
	usermod -aG docker "$user" || fail "the user $user cannot be added to the group docker"
}

# hide_metadata keeps containers from the cloud's metadata service, which gives out credentials and these keys. On Google Cloud
# its address is also that of the name server, so port 53 stays open.
hide_metadata() {
	cat >"$state/hide-metadata" <<-SCRIPT
		#!/bin/sh
		PATH=$PATH
		for protocol in tcp udp; do
			set -- DOCKER-USER -d $metadata -p \$protocol ! --dport 53 -j REJECT
			iptables -C "\$@" 2>/dev/null || iptables -I "\$@" || exit 1
		done
		iptables -C INPUT ! -i lo -d $metadata -j REJECT 2>/dev/null || iptables -I INPUT ! -i lo -d $metadata -j REJECT
	SCRIPT
	chmod 755 "$state/hide-metadata"
	try "containers cannot be kept from the metadata service" "$state/hide-metadata"
	if has systemctl && [ -d /run/systemd/system ]; then
		cat >/etc/systemd/system/dstack-hide-metadata.service <<-UNIT
			[Unit]
			Description=Keeps containers from the metadata service
			After=docker.service
			PartOf=docker.service
			[Service]
			Type=oneshot
			RemainAfterExit=yes
			ExecStart=$state/hide-metadata
			[Install]
			WantedBy=docker.service
		UNIT
		systemctl enable dstack-hide-metadata.service >/dev/null 2>&1
	fi
}

# add_driver installs NVIDIA's driver on Ubuntu. Other images have to bring it.
add_driver() {
	has nvidia-smi && nvidia-smi >/dev/null 2>&1 && return
	report "running: installs the driver of the GPUs"
	has apt-get || fail "the image has no driver of NVIDIA: configure an image that has one"
	try "the list of packages cannot be read" update_packages
	try "the driver of the GPUs cannot be installed" install ubuntu-drivers-common
	try "the driver of the GPUs cannot be installed" ubuntu-drivers install --gpgpu
	version=$(dpkg-query -W -f '${Package}\n' 'nvidia-headless-no-dkms-*-server*' 2>/dev/null | sed -n 's/^nvidia-headless-no-dkms-\([0-9]*\)-server.*/\1/p' | sort -n | tail -n 1)
	[ -z "$version" ] || try "the tools of the GPUs cannot be installed" install "nvidia-utils-$version-server"
	modprobe nvidia >/dev/null 2>&1
	try "the driver of the GPUs does not answer" nvidia-smi
}

fetch_apt_source() {
	base=https://nvidia.github.io/libnvidia-container
	curl -fsSL "$base/gpgkey" | gpg --batch --yes --dearmor -o /usr/share/keyrings/nvidia-container-toolkit.gpg &&
		curl -fsSL "$base/stable/deb/nvidia-container-toolkit.list" |
		sed 's#deb https://#deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit.gpg] https://#' >/etc/apt/sources.list.d/nvidia-container-toolkit.list
}

fetch_rpm_source() {
	curl -fsSL -o /etc/yum.repos.d/nvidia-container-toolkit.repo https://nvidia.github.io/libnvidia-container/stable/rpm/nvidia-container-toolkit.repo
}

add_toolkit() {
	if ! has nvidia-ctk; then
		report "running: installs the NVIDIA Container Toolkit"
		if has apt-get; then
			try "curl and gpg cannot be installed" install curl gpg ca-certificates
			try "NVIDIA's list of packages cannot be fetched" fetch_apt_source
			try "the list of packages cannot be read" update_packages
		else
			try "NVIDIA's list of packages cannot be fetched" fetch_rpm_source
		fi
		try "the NVIDIA Container Toolkit cannot be installed" install nvidia-container-toolkit
	fi
	docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"nvidia"' && return
	try "Docker cannot be configured for GPUs" nvidia-ctk runtime configure --runtime=docker
	if has systemctl && [ -d /run/systemd/system ]; then
		try "Docker does not start again" systemctl restart docker
	fi
	start_docker
}

report "running: adds the user $user"
set_host_key
add_user
add_docker
if [ "$gpus" = nvidia ]; then
	add_driver
	add_toolkit
fi
hide_metadata
report done
