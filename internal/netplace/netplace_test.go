package netplace_test

import (
	"encoding/pem"
	"slices"
	"testing"

	"dstack/internal/decide/traffic"
	"dstack/internal/netplace"
)

// A cluster that replaces its authority has both in its bundle for a while, in any order and with comments.
func TestFingerprintAuthorities(t *testing.T) {
	encode := func(kind, text string) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(text)}) }
	old, renewed, key := encode("CERTIFICATE", "old"), encode("CERTIFICATE", "new"), encode("PRIVATE KEY", "key")
	both := netplace.FingerprintAuthorities(slices.Concat([]byte("# the cluster\n"), renewed, key, old, old))
	if len(both) != 2 {
		t.Fatalf("%q", both)
	}
	if !traffic.IsSameCluster(both, netplace.FingerprintAuthorities(old)) || traffic.IsSameCluster(both, netplace.FingerprintAuthorities(key)) {
		t.Error("the bundles of one cluster are not recognized")
	}
	if got := netplace.FingerprintAuthorities([]byte("no certificate")); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
