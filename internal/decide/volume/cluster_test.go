package volume

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func newClaimVolume(name string, change func(*dstack.Volume)) dstack.Volume {
	v := dstack.Volume{ID: "1", Name: name, Backend: "kubernetes", Machine: "kubernetes", Status: dstack.VolumeActive, ExternalID: name + "-1",
		Since: testTime, Configuration: spec.Volume{Backend: "kubernetes"}}
	if change != nil {
		change(&v)
	}
	return v
}

// A claim is looked at until it is bound, and is never created a second time.
func TestDecide_InCluster(t *testing.T) {
	seen := func(change func(*dstack.Volume)) Result {
		return Result{IsListed: true, Created: newClaimVolume("data", change)}
	}
	for name, c := range map[string]struct {
		change func(*dstack.Volume)
		found  Result
		action Action
		to     dstack.VolumeStatus
		reason string
		due    time.Duration
		gone   bool
	}{
		"created": {func(v *dstack.Volume) { v.Status, v.ExternalID = dstack.VolumeProvisioning, "" }, seen(nil), Create, dstack.VolumeActive, "", time.Minute, false},
		"waits for its disk": {func(v *dstack.Volume) { v.Status, v.ExternalID = dstack.VolumeProvisioning, "" },
			seen(func(v *dstack.Volume) { v.Status, v.Reason = dstack.VolumeProvisioning, "no class" }), Create, dstack.VolumeProvisioning, "no class", time.Second, false},
		"waits for long": {func(v *dstack.Volume) { v.Status, v.Since = dstack.VolumeProvisioning, testTime.Add(-time.Hour) },
			seen(func(v *dstack.Volume) { v.Status, v.Reason = dstack.VolumeProvisioning, "no class" }), Check, dstack.VolumeProvisioning, "no class", 20 * time.Second, false},
		"vanished before it was bound": {func(v *dstack.Volume) { v.Status = dstack.VolumeProvisioning }, Result{}, Check, dstack.VolumeFailed,
			"its data is lost: the cluster kubernetes does not have the claim data-1", time.Minute, false},
		"refused for good": {func(v *dstack.Volume) { v.Status, v.ExternalID = dstack.VolumeProvisioning, "" }, Result{Err: newError(dstack.Forbidden, "no right")},
			Create, dstack.VolumeFailed, "no right; mend it", time.Minute, false},
		"over a quota": {func(v *dstack.Volume) { v.Status, v.ExternalID = dstack.VolumeProvisioning, "" }, Result{Err: newError(dstack.NoCapacity, "exceeded quota")},
			Create, dstack.VolumeProvisioning, "waits for the cluster kubernetes: exceeded quota", time.Second, false},
		"the API server is away": {nil, Result{Err: newError(dstack.Unavailable, "refused")}, Check, dstack.VolumeActive,
			"the cluster kubernetes does not answer: refused", time.Second, false},
		"bound with the first pod": {nil, seen(func(v *dstack.Volume) { v.Warning = "later" }), Check, dstack.VolumeActive, "", time.Second, false},
		"lost":                     {nil, seen(func(v *dstack.Volume) { v.Status, v.Reason = dstack.VolumeFailed, "lost" }), Check, dstack.VolumeFailed, "lost", time.Minute, false},
		"an existing claim is looked for again": {func(v *dstack.Volume) { v.IsExternal = true }, Result{Err: newError(dstack.NotFound, "no claim")}, Create,
			dstack.VolumeFailed, "no claim; mend it", time.Minute, false},
		"an existing claim is back": {func(v *dstack.Volume) { v.IsExternal, v.Status = true, dstack.VolumeFailed }, seen(nil), Create, dstack.VolumeActive, "", time.Minute, false},
		"deleted":                   {func(v *dstack.Volume) { v.Status = dstack.VolumeDeleting }, Result{}, Delete, dstack.VolumeDeleting, "", 0, true},
		"a pod keeps it": {func(v *dstack.Volume) { v.Status = dstack.VolumeDeleting }, seen(nil), Delete, dstack.VolumeDeleting,
			"deletes the claim data-1 when no pod mounts it", time.Second, false},
		"a pod mounts it": {func(v *dstack.Volume) { v.Status = dstack.VolumeDeleting }, Result{Err: newError(dstack.Conflict, "the pod web mounts it")}, Delete,
			dstack.VolumeDeleting, "the pod web mounts it; mend it", time.Second, false},
		"an existing claim is only forgotten": {func(v *dstack.Volume) { v.Status, v.IsExternal = dstack.VolumeDeleting, true }, seen(nil), Delete,
			dstack.VolumeDeleting, "", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := newClaimVolume("data", c.change)
			step, err := Decide(v, testTime)
			if err != nil || step.Action != c.action {
				t.Fatalf("the action is %q, %v", step.Action, err)
			}
			step = step.After(v, c.found, testTime)
			if step.To != c.to || step.IsGone != c.gone || !strings.Contains(string(step.Reason), c.reason) || c.reason == "" && step.Reason != "" {
				t.Errorf("the step is %+v", step)
			}
			if c.due > 0 && step.Due != testTime.Add(c.due) || c.due == 0 && !step.Due.IsZero() {
				t.Errorf("it is due at %v", step.Due)
			}
		})
	}
}

func TestChooseCluster(t *testing.T) {
	one, two := Cluster{"kubernetes", "cluster"}, Cluster{"kubernetes-edge", "edge"}
	for name, c := range map[string]struct {
		region   string
		clusters []Cluster
		want     string
		says     string
	}{
		"the only one": {"", []Cluster{one}, "kubernetes", ""},
		"by its name":  {"Edge", []Cluster{one, two}, "kubernetes-edge", ""},
		"by its key":   {"kubernetes-edge", []Cluster{one, two}, "kubernetes-edge", ""},
		"several":      {"", []Cluster{one, two}, "", "several clusters could have the volume: cluster and edge|add region:"},
		"unknown":      {"edg", []Cluster{one, two}, "", "there is no cluster edg|did you mean edge?"},
		"none":         {"", nil, "", "has no backend of type kubernetes|config.yml"},
	} {
		got, err := ChooseCluster(spec.Volume{Region: c.region}, c.clusters)
		if got.Key != c.want || (err == nil) != (c.says == "") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		checkSays(t, err, c.says)
	}
}

func withModes(modes ...string) func(*dstack.Volume) {
	return func(v *dstack.Volume) { v.Reach.AccessModes = modes }
}

// The access modes of a claim decide which replicas can mount it together, and a disk decides the nodes.
func TestFindPin_InCluster(t *testing.T) {
	volumes := []dstack.Volume{
		newClaimVolume("once", func(v *dstack.Volume) { v.Runs = []string{"web", "api"} }),
		newClaimVolume("many", withModes(spec.AccessReadWriteOnce, spec.AccessReadWriteMany)),
		newClaimVolume("pod", withModes(spec.AccessReadWriteOncePod)),
		newClaimVolume("read", withModes(spec.AccessReadOnlyMany)),
		newClaimVolume("local", func(v *dstack.Volume) {
			v.Reach = dstack.Reach{AccessModes: []string{spec.AccessReadWriteMany}, IsLimited: true, Machines: []dstack.InstanceID{"k1"}, Place: "k1"}
		}),
		newClaimVolume("lost", func(v *dstack.Volume) { v.Reach = dstack.Reach{IsLimited: true} }),
		newClaimVolume("far", func(v *dstack.Volume) { v.Backend, v.Machine = "kubernetes-edge", "kubernetes-edge" }),
		{Name: "data", Status: dstack.VolumeActive, Backend: "ssh", Machine: "gpu-1", Instance: "one"},
	}
	mount := func(names ...string) spec.Service {
		var mounts []spec.Mount
		for _, name := range names {
			mounts = append(mounts, spec.Mount{Name: name, Path: "/" + name})
		}
		return serviceWith(1, mounts...)
	}
	for name, c := range map[string]struct {
		mounts   []string
		clusters string
		machines int
		sharing  dstack.VolumeSharing
		says     string // of CheckMounts
	}{
		"a disk that a node mounts":  {[]string{"once"}, "kubernetes", 0, dstack.SharedByMachine, ""},
		"a shared disk":              {[]string{"many"}, "kubernetes", 0, dstack.SharedByAll, ""},
		"the strictest counts":       {[]string{"pod", "once"}, "kubernetes", 0, dstack.SharedByNobody, ""},
		"a disk for reading":         {[]string{"read"}, "kubernetes", 0, dstack.SharedByAll, ""},
		"a disk of one node":         {[]string{"many", "local"}, "", 1, dstack.SharedByAll, ""},
		"a disk of a node that left": {[]string{"lost"}, "", 0, dstack.SharedByMachine, "no machine has all volumes|in the cluster kubernetes, on a node that it does not have now"},
		"two clusters":               {[]string{"many", "far"}, "", 0, dstack.SharedByMachine, "the volume far is in the cluster kubernetes-edge"},
		"a cluster and a host":       {[]string{"many", "data"}, "", 0, dstack.SharedByAll, "the volume data is on gpu-1|of one cluster"},
	} {
		pin := FindPin(mount(c.mounts...), volumes)
		if strings.Join(pin.Clusters, " ") != c.clusters || len(pin.Machines) != c.machines || pin.Sharing != c.sharing {
			t.Errorf("%s: %+v", name, pin)
		}
		err := CheckMounts(mount(c.mounts...), "main", volumes)
		if (err == nil) != (c.says == "") {
			t.Errorf("%s: %v", name, err)
		}
		checkSays(t, err, c.says)
	}
	several := mount("pod")
	several.Replicas.Max = 2
	checkSays(t, CheckMounts(several, "main", volumes), "the service may have 2 replicas|one at a time (ReadWriteOncePod)|write replicas: 1")
	if err := CheckMounts(several, "main", volumes); dstack.KindOf(err) != dstack.Invalid {
		t.Error(err)
	}
	for name, want := range map[string]string{
		"once": "all replicas run on one node, because nodes mount the volume once one at a time (ReadWriteOnce)", "many": "", "read": "can only read the volume read",
		"local": "all replicas run on one machine and share the data",
	} {
		s := mount(name)
		s.Replicas.Max = 3
		if notes := strings.Join(Notes(s, volumes), "\n"); !strings.Contains(notes, want) || want == "" && notes != "" {
			t.Errorf("%s: %s", name, notes)
		}
	}
	if mounts, err := BuildMounts(mount("once"), volumes, dstack.Instance{ID: "k2", Backend: "kubernetes"}); err != nil || !mounts[0].OneNode {
		t.Errorf("%+v, %v", mounts, err)
	}
	mounts, err := BuildMounts(mount("read", "many"), volumes, dstack.Instance{ID: "k2", Backend: "kubernetes"})
	want := dstack.Mount{Kind: dstack.MountClaim, Source: "read-1", Target: "/read", ReadOnly: true}
	if err != nil || len(mounts) != 2 || mounts[0] != want || mounts[1].ReadOnly {
		t.Errorf("%+v, %v", mounts, err)
	}
	if _, err := BuildMounts(mount("local"), volumes, dstack.Instance{ID: "k2", Backend: "kubernetes"}); dstack.KindOf(err) != dstack.NotFound {
		t.Error(err)
	}
}
