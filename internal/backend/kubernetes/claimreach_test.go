package kubernetes

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"dstack/internal/decide/node"
	"dstack/internal/dstack"
)

func selectorOf(terms ...corev1.NodeSelectorTerm) *corev1.NodeSelector {
	return &corev1.NodeSelector{NodeSelectorTerms: terms}
}

func term(key string, operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: operator, Values: values}}}
}

// A disk's node affinity is read as the scheduler reads it.
func TestMatchesNode(t *testing.T) {
	n := node.Facts{Name: "k1", Labels: map[string]string{"zone": "a", "size": "8"}}
	both := corev1.NodeSelectorTerm{MatchExpressions: append(term("zone", corev1.NodeSelectorOpIn, "a").MatchExpressions,
		term("size", corev1.NodeSelectorOpIn, "4").MatchExpressions...)}
	for name, c := range map[string]struct {
		selector *corev1.NodeSelector
		want     bool
	}{
		"in":                      {selectorOf(term("zone", corev1.NodeSelectorOpIn, "b", "a")), true},
		"not among the values":    {selectorOf(term("zone", corev1.NodeSelectorOpIn, "b")), false},
		"in, without the label":   {selectorOf(term("rack", corev1.NodeSelectorOpIn, "a")), false},
		"not in":                  {selectorOf(term("zone", corev1.NodeSelectorOpNotIn, "a")), false},
		"not in, without a label": {selectorOf(term("rack", corev1.NodeSelectorOpNotIn, "a")), true},
		"exists":                  {selectorOf(term("zone", corev1.NodeSelectorOpExists)), true},
		"does not exist":          {selectorOf(term("zone", corev1.NodeSelectorOpDoesNotExist)), false},
		"greater":                 {selectorOf(term("size", corev1.NodeSelectorOpGt, "7")), true},
		"not less":                {selectorOf(term("size", corev1.NodeSelectorOpLt, "8")), false},
		"no number":               {selectorOf(term("zone", corev1.NodeSelectorOpGt, "7")), false},
		"all of a term":           {selectorOf(both), false},
		"one of the terms":        {selectorOf(both, term("zone", corev1.NodeSelectorOpExists)), true},
		"an empty term":           {selectorOf(corev1.NodeSelectorTerm{}), false},
		"by name": {selectorOf(corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{"k2"}}}}), false},
	} {
		if got := matchesNode(c.selector, n); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestDescribeReach(t *testing.T) {
	zone := term(corev1.LabelTopologyZone, corev1.NodeSelectorOpIn, "eu-1b", "eu-1a")
	for want, c := range map[string]struct {
		selector *corev1.NodeSelector
		names    []string
	}{
		"nodes of the zone eu-1a or eu-1b": {selectorOf(zone, zone), []string{"k1"}},
		"k1":                               {selectorOf(term(corev1.LabelHostname, corev1.NodeSelectorOpIn, "k1")), []string{"k1"}},
		"k1, k2, k3 and 2 more nodes":      {selectorOf(term("x", corev1.NodeSelectorOpExists)), []string{"k1", "k2", "k3", "k4", "k5"}},
		"":                                 {selectorOf(zone), nil},
	} {
		if got := describeReach(c.selector, c.names); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

// A claim whose disk vanished, or that somebody deletes, is no volume that can be used.
func TestClaimLook_Read(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   dstack.Reason
	}{
		"lost": {func(p *corev1.PersistentVolumeClaim) { p.Status.Phase, p.Spec.VolumeName = corev1.ClaimLost, "pv-1" },
			"its data is lost: the persistent volume pv-1 of the claim data does not exist any more"},
		"being deleted": {func(p *corev1.PersistentVolumeClaim) { p.DeletionTimestamp = new(metav1.Now()) }, "the claim data is being deleted in the cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}}
			c.change(claim)
			look := &claimLook{claims: &claims{key: "kubernetes"}}
			if v, err := look.read(dstack.Volume{ID: "1"}, claim); err != nil || v.Status != dstack.VolumeFailed || v.Reason != c.want || v.ExternalID != "data" {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

func TestDescribePods(t *testing.T) {
	for want, names := range map[string][]string{
		"the pod a": {"a"}, "the pods a, b": {"a", "b"}, "the pods a, b, c and 2 more": {"a", "b", "c", "d", "e"},
	} {
		if got := describePods(names); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
