package spec

import (
	"fmt"
	"slices"

	"dstack/internal/strictyaml"
)

// The access modes of claims: which nodes and pods may mount a volume at the same time.
const (
	AccessReadWriteOnce    = "ReadWriteOnce"    // the pods of one node
	AccessReadOnlyMany     = "ReadOnlyMany"     // all pods, for reading
	AccessReadWriteMany    = "ReadWriteMany"    // all pods
	AccessReadWriteOncePod = "ReadWriteOncePod" // one pod
)

var accessModes = []string{AccessReadWriteOnce, AccessReadOnlyMany, AccessReadWriteMany, AccessReadWriteOncePod}

// maxClaimName is the longest name of an object of Kubernetes.
const maxClaimName = 253

// claimNamePattern is what objects of Kubernetes may be called.
const claimNamePattern = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`

var (
	claimNameExpression = newPattern(claimNamePattern)
	accessModesShape    = listShape("list of "+oneOfShape(accessModes...).words, oneOfShape(accessModes...)).withMinItems(1)
)

// ExistingClaim returns the name of the existing claim that a volume of Kubernetes is; empty: a new one is made.
func (v Volume) ExistingClaim() string {
	if v.ClaimName != "" {
		return string(v.ClaimName)
	}
	return string(v.VolumeID)
}

// NewClaimModes returns the access modes of a new claim.
func (v Volume) NewClaimModes() []string {
	if len(v.AccessModes) == 0 {
		return []string{AccessReadWriteOnce}
	}
	return v.AccessModes
}

// kubernetesFields are the fields that only volumes of Kubernetes have.
var kubernetesFields = []string{"claim_name", "storage_class_name", "access_modes", "read_only"}

// checkKubernetesFields checks the fields that mean something only in a cluster.
func (r *reader) checkKubernetesFields(n *strictyaml.Node, v *Volume) {
	if v.Backend == BackendKubernetes {
		r.checkClaim(n, v)
		return
	}
	for _, key := range kubernetesFields {
		if value := n.Get(key); !value.IsNull() {
			r.Add(value, "`"+key+"` can only be used with backend: kubernetes", "remove it")
		}
	}
}

// checkClaim checks the names and access modes of a claim, which a cluster would refuse much later.
func (r *reader) checkClaim(n *strictyaml.Node, v *Volume) {
	for _, name := range []struct{ key, value, example string }{
		{"claim_name", string(v.ClaimName), "my-claim"}, {"volume_id", string(v.VolumeID), "my-claim"}, {"storage_class_name", string(v.StorageClass), "fast"},
	} {
		if name.value != "" && (len(name.value) > maxClaimName || !claimNameExpression.MatchString(name.value)) {
			r.Add(n.Get(name.key), fmt.Sprintf("`%.60s` cannot be the name of an object of Kubernetes", name.value),
				fmt.Sprintf("write lowercase letters, digits, dashes and dots, as in %s: %s", name.key, name.example))
		}
	}
	if v.ClaimName != "" && v.VolumeID != "" && v.ClaimName != v.VolumeID {
		r.Add(n.Get("volume_id"), "`claim_name` and `volume_id` name different claims", "remove `volume_id`")
	}
	if len(v.AccessModes) > 1 && slices.Contains(v.AccessModes, AccessReadWriteOncePod) {
		r.Add(n.Get("access_modes"), "`"+AccessReadWriteOncePod+"` cannot be combined with other access modes",
			"write access_modes: ["+AccessReadWriteOncePod+"], or leave it out")
	}
}

// readAccessModes reads a list of access modes, which has at least one.
func (r *reader) readAccessModes(n *strictyaml.Node) []string {
	items, ok := r.ReadItems(n, "`access_modes`")
	if ok && len(items) == 0 {
		r.Add(n, "`access_modes` cannot be an empty list", "write access_modes: ["+AccessReadWriteOnce+"], or remove it")
	}
	modes := make([]string, 0, len(items))
	for _, item := range items {
		if mode, ok := r.ReadOneOf(item, accessModes...); ok && !slices.Contains(modes, mode) {
			modes = append(modes, mode)
		}
	}
	return modes
}
