# Prepares a rented machine for dstack: a user that the server logs in as, Docker, and what containers need to use GPUs. It is
# a shell script for root that runs once, at the first boot, and may run again. Before it come the variables
#   user             who logs in
#   authorized       lines of authorized_keys
#   host_key         the private key that this machine proves itself with, and host_key_public
#   gpus             nvidia, amd or another maker; empty: there are none
# How far it is, is in /var/lib/dstack/setup, or in /run/dstack/setup if the disk is full: "running: WHAT", "done" or
# "failed: WHY".
set -u
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C
state=/var/lib/dstack
volatile=/run/dstack
output=$volatile/setup-output
metadata=169.254.169.254
umask 022
mkdir -p "$state" "$volatile"

report() {
	if printf '%s\n' "$1" >"$state/setup.new" && mv -f "$state/setup.new" "$state/setup"; then
		rm -f "$volatile/setup"
	else
		printf '%s\n' "$1" >"$volatile/setup"
	fi 2>/dev/null
}
fail() {
	rm -f "$state/setup.sh"
	report "failed: $1"
	exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }
has_systemd() { has systemctl && [ -d /run/systemd/system ]; }

# uptime prints seconds that no correction of the clock changes.
uptime() { cut -d . -f 1 /proc/uptime; }
last_try=$(($(uptime) + 540))

# try repeats a command until it succeeds, for at most two minutes of pauses. It is not begun again nine minutes after the
# setup began, so that the machine is not given up before it has said why.
try() {
	what=$1
	shift
	for pause in 2 5 10 20 40 40 0; do
		"$@" >"$output" 2>&1 && return
		[ "$(uptime)" -lt "$last_try" ] || break
		sleep "$pause"
	done
	fail "$what: $(explain_output)"
}

# explain_output prints the line of the output that says most: apt-get and dnf end with advice. Errors before a line "then:"
# are mentioned beside it.
explain_output() {
	awk '
		/^[[:space:]]*$/ { next }
		{ last = $0 }
		unfinished { error = error $0; unfinished = 0; next }
		/^W: Failed to fetch/ && warning == "" { warning = " (" $0 ")" }
		/^then:$/ { if (error != "") warning = " (" error ")"; error = ""; next }
		/^(E: |dpkg: error|Error: |No match|curl: )/ && !/Sub-process|Some index files/ && error == "" { error = $0; unfinished = /:$/ }
		END {
			if (warning == " (" error ")") warning = ""
			print (error == "" ? last : error) warning
		}' "$output" | tr -s '[:blank:]' ' ' | cut -c 1-400
}

# repeat_after_boot makes the setup begin again if the machine boots before it has ended: cloud-init runs it only once.
repeat_after_boot() {
	if ! has_systemd || [ ! -f "$0" ] || [ "$0" = "$state/setup.sh" ]; then
		return
	fi
	(umask 077 && cp "$0" "$state/setup.sh") || return
	cat >/etc/systemd/system/dstack-setup.service <<-UNIT
		[Unit]
		Description=Prepares the machine for dstack
		ConditionPathExists=$state/setup.sh
		Wants=network-online.target
		After=network-online.target
		[Service]
		Type=oneshot
		ExecStart=/bin/sh $state/setup.sh
		[Install]
		WantedBy=multi-user.target
	UNIT
	systemctl enable dstack-setup.service >/dev/null 2>&1
}

write_host_key() (
	umask 077
	printf '%s\n' "$host_key" >/etc/ssh/ssh_host_ed25519_key.new &&
		printf '%s\n' "$host_key_public" >/etc/ssh/ssh_host_ed25519_key.pub &&
		chmod 644 /etc/ssh/ssh_host_ed25519_key.pub && mv -f /etc/ssh/ssh_host_ed25519_key.new /etc/ssh/ssh_host_ed25519_key
)

set_host_key() {
	try "its host key cannot be written" write_host_key
	if has_systemd; then
		systemctl try-restart ssh.service sshd.service >/dev/null 2>&1
	elif [ -s /run/sshd.pid ]; then
		kill -HUP "$(cat /run/sshd.pid)"
	fi
}

write_user_keys() {
	mkdir -p "$home/.ssh" && printf '%s\n' "$authorized" >"$home/.ssh/authorized_keys" && chmod 700 "$home/.ssh" &&
		chmod 600 "$home/.ssh/authorized_keys" && chown -R "$user:" "$home/.ssh" || return
	has restorecon && restorecon -R "$home/.ssh" /etc/ssh
	return 0
}

# add_user adds the user. Its password is none, not locked: some SSH servers refuse locked users.
add_user() {
	if ! id "$user" >/dev/null 2>&1; then
		try "the user $user cannot be added" useradd --create-home --shell "$(command -v bash || echo /bin/sh)" "$user"
	fi
	usermod -p '*' "$user"
	home=$(getent passwd "$user" | cut -d : -f 6)
	try "the key of $user cannot be written" write_user_keys
}

# allow_sudo lets the user become root, which mounts the disks of volumes.
allow_sudo() {
	has sudo || try "sudo cannot be installed" install sudo
	mkdir -p /etc/sudoers.d
	printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$user" >/etc/sudoers.d/90-dstack && chmod 440 /etc/sudoers.d/90-dstack
}

# run_apt_get waits for a program that installs packages at the same time, as Ubuntu's upgrades do after the first boot.
run_apt_get() {
	apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o APT::Update::Error-Mode=any \
		-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold --no-install-recommends "$@"
}

# install_with_apt reads the lists of packages first, and again after a failure: an image has none or old ones. A list that
# cannot be read matters only if a package is not found then.
are_lists_read=''
install_with_apt() {
	if [ -z "$are_lists_read" ]; then
		run_apt_get update && are_lists_read=yes
	fi
	echo then:
	run_apt_get install "$@" && return
	are_lists_read=''
	dpkg --configure -a >/dev/null 2>&1 # it may have been interrupted
	return 1
}

# install installs packages, by the names that the system has for them.
install() {
	if has apt-get; then
		install_with_apt "$@"
	elif has dnf; then
		dnf -q -y install "$@"
	elif has yum; then
		yum -q -y install "$@"
	else
		echo "there is no apt-get, dnf or yum"
		return 1
	fi
}

# run_docker starts or restarts Docker. systemd refuses the third start within a minute unless it forgets the others.
run_docker() {
	systemctl reset-failed docker.service
	systemctl "$1" docker && return
	journalctl -q -o cat -n 100 -u docker.service | grep -E 'failed to start daemon|level=fatal|unable to configure' | tail -n 1
	return 1
}

start_docker() {
	if has_systemd; then
		systemctl enable docker >/dev/null 2>&1
		try "Docker does not start" run_docker start
	fi
	try "Docker does not answer" docker version
}

add_docker() {
	if ! has docker || ! has iptables; then
		report "running: installs Docker"
		docker=''
		if ! has docker; then
			docker=docker
			has apt-get && docker=docker.io
		fi
		try "Docker cannot be installed" install $docker iptables
	fi
	start_docker
	getent group docker >/dev/null || groupadd docker
	usermod -aG docker "$user" || fail "the user $user cannot be added to the group docker"
}

# hide_metadata keeps containers from the cloud's metadata service, which gives out credentials and these keys. On Google Cloud
# the same address also answers names (port 53), which containers need.
hide_metadata() {
	cat >"$state/hide-metadata" <<-SCRIPT
		#!/bin/sh
		PATH=$PATH
		for protocol in tcp udp; do
			for chain in DOCKER-USER "INPUT ! -i lo"; do
				rule="\$chain -d $metadata -p \$protocol ! --dport 53 -j REJECT"
				iptables -w 10 -C \$rule 2>/dev/null || iptables -w 10 -I \$rule || exit 1
			done
		done
	SCRIPT
	chmod 755 "$state/hide-metadata"
	try "containers cannot be kept from the metadata service" "$state/hide-metadata"
	if has_systemd; then
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
	try "the driver of the GPUs cannot be installed" install ubuntu-drivers-common
	try "the driver of the GPUs cannot be installed" ubuntu-drivers install --gpgpu
	version=$(dpkg-query -W -f '${Package}\n' 'nvidia-headless-no-dkms-*-server*' 2>/dev/null | sed -n 's/^nvidia-headless-no-dkms-\([0-9]*\)-server.*/\1/p' | sort -n | tail -n 1)
	[ -z "$version" ] || try "the tools of the GPUs cannot be installed" install "nvidia-utils-$version-server"
	modprobe nvidia >/dev/null 2>&1
	try "the driver of the GPUs does not answer" nvidia-smi
}

# fetch downloads a file: all of it or nothing.
fetch() { # URL FILE
	curl -fsSL --connect-timeout 10 -m 60 -o "$2.new" "$1" && [ -s "$2.new" ] && mv -f "$2.new" "$2"
}

fetch_source() {
	base=https://nvidia.github.io/libnvidia-container/stable
	if ! has apt-get; then
		fetch "$base/rpm/nvidia-container-toolkit.repo" /etc/yum.repos.d/nvidia-container-toolkit.repo
		return
	fi
	key=/usr/share/keyrings/nvidia-container-toolkit.asc
	fetch "${base%/stable}/gpgkey" $key && fetch "$base/deb/nvidia-container-toolkit.list" "$volatile/toolkit.list" &&
		sed "s#deb https://#deb [signed-by=$key] https://#" "$volatile/toolkit.list" >/etc/apt/sources.list.d/nvidia-container-toolkit.list
}

add_toolkit() {
	if ! has nvidia-ctk; then
		report "running: installs the NVIDIA Container Toolkit"
		has curl || try "curl cannot be installed" install curl ca-certificates
		try "NVIDIA's list of packages cannot be fetched" fetch_source
		are_lists_read=''
		try "the NVIDIA Container Toolkit cannot be installed" install nvidia-container-toolkit
	fi
	docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"nvidia"' && return
	try "Docker cannot be configured for GPUs" nvidia-ctk runtime configure --runtime=docker
	if has_systemd; then
		try "Docker does not start again" run_docker restart
	fi
	start_docker
}

report "running: adds the user $user"
repeat_after_boot
set_host_key
add_user
add_docker
allow_sudo
if [ "$gpus" = nvidia ]; then
	add_driver
	add_toolkit
fi
hide_metadata
rm -f "$state/setup.sh"
report "done"
