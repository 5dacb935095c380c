#!/usr/bin/env bash
# Builds the static binary, and packages of it. It shows progress: the first build compiles several
# hundred packages, which takes minutes on a small machine.
#
#   scripts/build.sh OUTPUT [VERSION]       the binary
#   scripts/build.sh package [VERSION]      dist/dstack_VERSION_ARCH.deb, for the architecture in GOARCH
#   scripts/build.sh image TAG [VERSION]    an image of the local Docker Engine, without a pull
#
# BINARY names a binary that exists already, for package and image. NFPM names the program nfpm; without it, `go run` builds it.
set -uo pipefail
cd "$(dirname "$0")/.."
usage='usage: scripts/build.sh OUTPUT [VERSION] | package [VERSION] | image TAG [VERSION]'
go=${GO:-go}
nfpm_version=v2.45.2 # modules that later versions need could not be downloaded

# show_progress reads the output of `go build -v`. Names of packages, one a line
# as each is compiled, become one progress line; everything else is printed.
show_progress() {
	local total=$1 compiled=0 shown=$SECONDS line
	while IFS= read -r line; do
		if [[ $line =~ [[:space:]:] || -z $line ]]; then
			[ -t 2 ] && printf '\r\033[K' >&2
			printf '%s\n' "$line" >&2
			continue
		fi
		compiled=$((compiled + 1))
		if [ -t 2 ]; then
			printf '\r\033[Kcompiling: %d of %d packages' "$compiled" "$total" >&2
		elif ((SECONDS - shown >= 10)); then
			shown=$SECONDS
			echo "compiling: $compiled of $total packages after ${SECONDS}s" >&2
		fi
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
	[ "$compiled" -lt 20 ] || echo "compiled $compiled packages in ${SECONDS}s" >&2
}

# build_binary OUTPUT [VERSION]
build_binary() {
	local output=$1 ldflags="-s -w${2:+ -X main.version=$2}" total
	[ -e "$output" ] || echo "building $output; the first build downloads and compiles all dependencies" >&2
	total=$(CGO_ENABLED=0 "$go" list -deps ./cmd/dstack | wc -l)
	CGO_ENABLED=0 "$go" build -v -trimpath -buildvcs=auto -ldflags "$ldflags" -o "$output" ./cmd/dstack 2>&1 | show_progress "$total"
	return "${PIPESTATUS[0]}"
}

# place_binary OUTPUT [VERSION] copies the binary that exists already, or builds one for Linux.
place_binary() {
	if [ -n "${BINARY:-}" ]; then
		cp "$BINARY" "$1"
	else
		GOOS=linux build_binary "$@"
	fi
}

# build_package [VERSION]
build_package() {
	local version=${1:-} dir=dist/package nfpm=(env -u GOARCH -u GOOS "$go" run "github.com/goreleaser/nfpm/v2/cmd/nfpm@$nfpm_version") unit
	[ -z "${NFPM:-}" ] || nfpm=("$NFPM")
	GOARCH=$("$go" env GOARCH)
	rm -rf $dir && mkdir -p $dir/systemd && place_binary $dir/dstack "$version" || return
	for unit in packaging/systemd/*.service; do
		sed 's#/usr/local/bin/dstack#/usr/bin/dstack#g' "$unit" >"$dir/systemd/$(basename "$unit")" || return
	done
	[ -n "$version" ] || version=$(sed -n 's/^const nextRelease = "\(.*\)"/\1-dev/p' cmd/dstack/version.go)+$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
	VERSION=$version GOARCH=$GOARCH "${nfpm[@]}" package --config packaging/nfpm.yaml --packager deb --target dist/
}

# build_image TAG [VERSION]
build_image() {
	local dir=dist/image
	rm -rf $dir && mkdir -p $dir/rootfs/tmp $dir/rootfs/etc $dir/state && chmod 1777 $dir/rootfs/tmp || return
	echo 'dstack:x:65532:65532::/var/lib/dstack:/usr/sbin/nologin' >$dir/rootfs/etc/passwd
	place_binary $dir/dstack "${2:-}" && docker build --quiet --pull=false --tag "$1" --file Dockerfile $dir
}

case ${1:?$usage} in
package) build_package "${2:-}" ;;
image) build_image "${2:?$usage}" "${3:-}" ;;
*) build_binary "$1" "${2:-}" ;;
esac
