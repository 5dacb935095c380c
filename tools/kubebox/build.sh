#!/usr/bin/env bash
# Builds what test clusters need into a folder: kubebox (Kubernetes in one program), kwok (which plays nodes and pods), its
# rules in kwok-stages/, and helm. They share what they compile, because one go.mod pins them all.
#
#   build.sh FOLDER
set -euo pipefail
mkdir -p "$1"
out=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v*.} minor=${minor%%.*}
names=k8s.io/component-base/version
export CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false -trimpath'
# build PROGRAM PACKAGE. The trap needs a wait, so that the end of this script ends the build.
trap 'kill "$child"; exit 143' TERM INT
build() {
	go build -ldflags "-s -w $flags" -o "$out/$1" "$2" &
	child=$!
	wait "$child"
}

flags="-X $names.gitVersion=$version -X $names.gitMajor=1 -X $names.gitMinor=$minor -X $names.gitTreeState=clean" build kubebox .
flags='' build kwok sigs.k8s.io/kwok/cmd/kwok
flags='' build helm helm.sh/helm/v4/cmd/helm
mkdir -p "$out/kwok-stages"
stages=$(go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
for stage in "$stages"/{node/fast,node/heartbeat-with-lease,pod/fast}/*.yaml; do
	case $stage in */kustomization.yaml) ;; *) install -m 644 "$stage" "$out/kwok-stages/" ;; esac
done
ln -sf kubebox "$out/kubectl"
touch "$out/complete"
