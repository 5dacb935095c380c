package reconcile_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// deafBackend is a backend whose API does not answer.
type deafBackend struct{ backend.Backend }

func (deafBackend) Offers(context.Context, dstack.Requirements) ([]dstack.Offer, error) {
	return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "connection refused"}
}

// Where the cluster chooses the node, an attempt says which nodes suit, and how much it reserves. A replica without a place says
// which cluster does not answer.
func TestPasses_AnyNode(t *testing.T) {
	r := newRig(t)
	o := dstack.Offer{Backend: "kubernetes", Key: "kubernetes", Type: "any node", OwnedInstance: "any", IsRemote: true, IsManaged: true, AnyNode: true, Engine: containers}
	fake := backendtest.NewFake(backendtest.FakeOptions{Offers: []dstack.Offer{o}, NewEngine: func(dstack.InstanceID) engine.Engine { return r.engine }})
	r.set = backend.NewSet()
	r.set.Share("kubernetes", fake)
	r.set.Share("kubernetes-west", deafBackend{fake})
	r.begin(lifecycle.Limits{})
	id := r.submitLike(func(s *spec.Service) {
		s.InstanceTypes = []string{"g5.xlarge"}
		s.Resources.Memory, s.Resources.Explicit.Memory = spec.Range[spec.GB]{Min: new(spec.GB(16))}, true
	})
	got := r.attemptSpec(r.until(id, "ready", ready(1)))
	want := dstack.NodeSelector{{{Label: "node.kubernetes.io/instance-type", Operator: dstack.NodeIn, Values: []string{"g5.xlarge"}}},
		{{Label: "kubernetes.io/hostname", Operator: dstack.NodeIn, Values: []string{"g5.xlarge"}}}}
	if diff := cmp.Diff(want, got.Nodes); diff != "" || got.Claim.MemoryMiB != 16<<10 {
		t.Errorf("%s; reserved %+v", diff, got.Claim)
	}
	second := r.submitLike(func(s *spec.Service) { s.InstanceName = "gpu-1" }, "second")
	w := r.until(second, "without a place", func(w store.RunDetails) bool { return len(w.Replicas) == 1 && w.Replicas[0].Reason != "" })
	for _, want := range []string{"any node: the cluster chooses the node, and `instance_name` allows only gpu-1", "kubernetes-west: does not answer: connection refused"} {
		if reason := string(w.Replicas[0].Reason); !strings.Contains(reason, want) {
			t.Errorf("the reason is %q, and does not say %q", reason, want)
		}
	}
}
