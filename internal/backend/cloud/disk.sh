# Mounts the disk of a volume on a rented machine, or takes it off. It is a shell script for root and may run again. Before it
# come the variables
#   action           mount or unmount
#   links            the folder with the links to disks: /dev/disk/by-id
#   by_id            the name of the disk there; may be empty
#   serial           the serial number of the disk; may be empty
#   folder           where it is mounted
#   may_format       yes: the disk is new, so that it gets a file system if it has none
# It prints one line: "mounted DEVICE", "formatted DEVICE", "unmounted", "wait WHY" or "failed WHY".
set -u
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C

answer() {
	printf '%s\n' "$*"
	exit 0
}
last_line() { printf '%s\n' "$1" | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c 1-300; }
mounted_device() { awk -v folder="$folder" '$2 == folder { device = $1 } END { print device }' /proc/mounts; }

# find_device prints the block device of the disk, which must be one.
find_device() {
	for name in "$by_id" ${serial:+"nvme-Amazon_Elastic_Block_Store_$serial"}; do
		if [ -n "$name" ] && [ -e "$links/$name" ]; then
			readlink -f "$links/$name"
			return
		fi
	done
	[ -n "$serial" ] || return 0
	lsblk -dnro NAME,SERIAL 2>/dev/null | awk -v serial="$serial" '
		{ found = $2; gsub("-", "", found) }
		found == serial { n++; device = "/dev/" $1 }
		END { if (n == 1) print device }'
}

unmount() {
	if [ -n "$(mounted_device)" ]; then
		said=$(umount "$folder" 2>&1) || answer "wait the volume is still in use there: $(last_line "$said")"
	fi
	rmdir "$folder" 2>/dev/null
	answer unmounted
}

# check_empty ends the script unless the device has nothing at all: no file system, no partitions, no other signature.
check_empty() {
	said=$(blkid -p "$device" 2>&1)
	code=$?
	[ "$code" = 2 ] && [ -z "$said" ] || answer "failed the disk has no file system that can be used: $(last_line "$said")"
	[ "$(lsblk -nro NAME "$device" | wc -l)" = 1 ] || answer "failed the disk has partitions"
	[ "$may_format" = yes ] || answer "failed the disk has no file system, and an existing disk is never formatted: make one on it, such as ext4"
}

mount_disk() {
	device=$(find_device)
	[ -n "$device" ] && [ -b "$device" ] || answer "wait the machine does not see the disk yet"
	there=$(mounted_device)
	[ "$there" != "$device" ] || answer "mounted $device"
	[ -z "$there" ] || answer "failed another disk is mounted at $folder: $there"
	result=mounted
	type=$(blkid -p -o value -s TYPE "$device" 2>/dev/null)
	if [ -z "$type" ]; then
		check_empty
		said=$(mkfs.ext4 -q "$device" </dev/null 2>&1) || answer "failed mkfs.ext4: $(last_line "$said")"
		type=ext4 result=formatted
	fi
	mkdir -p "$folder" || answer "failed $folder cannot be made"
	if ! said=$(mount -t "$type" -o nodev,nosuid "$device" "$folder" 2>&1); then
		rmdir "$folder" 2>/dev/null
		answer "failed the disk cannot be mounted as $type: $(last_line "$said")"
	fi
	answer "$result $device"
}

mkdir -p /run/dstack
if command -v flock >/dev/null 2>&1; then
	exec 9>/run/dstack/volumes.lock
	flock -w 20 9 || answer "wait another command works on the disks of the machine"
fi
case $action in
mount) mount_disk ;;
unmount) unmount ;;
esac
