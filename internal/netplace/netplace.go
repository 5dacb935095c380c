// Package netplace finds out where this process is in the network: in a pod of which cluster, on a machine of which boot, and
// with which routes.
package netplace

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"os"
	"slices"
	"strings"
)

// podAuthorities is where the kubelet puts the authority of the cluster into every pod that has a service account.
const podAuthorities = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

// PodAuthorities returns the fingerprints of the authorities of the cluster whose pod this process runs in. It returns none
// outside of pods. See traffic.IsSameCluster.
func PodAuthorities() []string {
	bundle, err := os.ReadFile(podAuthorities)
	if err != nil {
		return nil
	}
	return FingerprintAuthorities(bundle)
}

// FingerprintAuthorities returns the SHA-256 of each certificate of a bundle in PEM, hexadecimal and sorted.
func FingerprintAuthorities(bundle []byte) []string {
	var found []string
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			slices.Sort(found)
			return slices.Compact(found)
		}
		if block.Type == "CERTIFICATE" {
			digest := sha256.Sum256(block.Bytes)
			found = append(found, hex.EncodeToString(digest[:]))
		}
	}
}

// BootID identifies the last boot of this machine, as the status of a Node does. It is empty where the system does not tell.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
