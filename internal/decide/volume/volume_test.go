package volume

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var testTime = time.Date(2026, 11, 29, 4, 0, 0, 0, time.UTC)

func newError(kind dstack.Kind, message string) error {
	return &dstack.Error{Kind: kind, Message: message, Hint: "mend it"}
}

// Each status has its action, and each result of the action its next status and reason.
func TestDecide(t *testing.T) {
	created := Result{Created: dstack.Volume{ExternalID: "dstack-data-1"}}
	for name, c := range map[string]struct {
		status     dstack.VolumeStatus
		change     func(*dstack.Volume)
		found      Result
		action     Action
		to         dstack.VolumeStatus
		reason     string // a part
		due        time.Duration
		never      bool
		gone       bool
		hasFailure bool
	}{
		"the intent is saved first": {status: dstack.VolumeSubmitted, to: dstack.VolumeProvisioning, reason: "created on gpu-1"},
		"created":                   {status: dstack.VolumeProvisioning, found: created, action: Create, to: dstack.VolumeActive, due: time.Minute},
		"an external folder is not checked again": {status: dstack.VolumeProvisioning, action: Create, to: dstack.VolumeActive, never: true,
			found: Result{Created: dstack.Volume{IsExternal: true, ExternalID: "/srv"}}},
		"creation waits for a silent host": {status: dstack.VolumeProvisioning, found: Result{Err: newError(dstack.Unavailable, "no route")},
			action: Create, to: dstack.VolumeProvisioning, reason: "waits for gpu-1: no route; mend it", due: time.Second, hasFailure: true},
		"a missing folder fails": {status: dstack.VolumeProvisioning, found: Result{Err: newError(dstack.NotFound, "there is no folder /srv")},
			action: Create, to: dstack.VolumeFailed, reason: "there is no folder /srv; mend it", never: true},
		"a host that left before": {status: dstack.VolumeProvisioning, found: Result{IsMachineGone: true}, action: Create, to: dstack.VolumeFailed,
			reason: "gpu-1 is not among the machines", never: true},
		"still there": {status: dstack.VolumeActive, found: Result{IsListed: true}, action: Check, to: dstack.VolumeActive, due: time.Minute},
		"lost": {status: dstack.VolumeActive, action: Check, to: dstack.VolumeFailed, reason: "gpu-1 does not have dstack-data-1 any more",
			due: time.Minute},
		"applied again, and found": {status: dstack.VolumeProvisioning, change: func(v *dstack.Volume) { v.ExternalID = "dstack-data-1" },
			found: Result{IsListed: true}, action: Check, to: dstack.VolumeActive, due: time.Minute},
		"applied again, without its data": {status: dstack.VolumeProvisioning, change: func(v *dstack.Volume) { v.ExternalID = "dstack-data-1" },
			action: Check, to: dstack.VolumeFailed, reason: "its data is lost", due: time.Minute},
		"found again": {status: dstack.VolumeFailed, found: Result{IsListed: true}, action: Check, to: dstack.VolumeActive, due: time.Minute},
		"a silent host loses nothing": {status: dstack.VolumeActive, found: Result{Err: newError(dstack.Unavailable, "timeout")}, action: Check,
			to: dstack.VolumeActive, reason: "gpu-1 does not answer: timeout", due: time.Second, hasFailure: true},
		"its host left": {status: dstack.VolumeActive, found: Result{IsMachineGone: true}, action: Check, to: dstack.VolumeFailed,
			reason: "the data stays on it", due: time.Minute},
		"an external folder in use": {status: dstack.VolumeActive, change: func(v *dstack.Volume) { v.IsExternal = true }, to: dstack.VolumeActive, never: true},
		"failed before it existed":  {status: dstack.VolumeFailed, change: func(v *dstack.Volume) { v.ExternalID = "" }, to: dstack.VolumeFailed, never: true},
		"deleted":                   {status: dstack.VolumeDeleting, action: Delete, to: dstack.VolumeDeleting, gone: true, never: true},
		"deleted with its host":     {status: dstack.VolumeDeleting, found: Result{IsMachineGone: true}, action: Delete, to: dstack.VolumeDeleting, gone: true, never: true},
		"a container still mounts it": {status: dstack.VolumeDeleting, found: Result{Err: newError(dstack.Conflict, "a container mounts it")}, action: Delete,
			to: dstack.VolumeDeleting, reason: "a container mounts it; mend it", due: time.Second, hasFailure: true},
		"the pause grows to a minute": {status: dstack.VolumeDeleting, change: func(v *dstack.Volume) { v.Failures = 100 },
			found: Result{Err: newError(dstack.Unavailable, "timeout")}, action: Delete, to: dstack.VolumeDeleting, reason: "its deletion waits for gpu-1",
			due: time.Minute, hasFailure: true},
	} {
		t.Run(name, func(t *testing.T) {
			v := dstack.Volume{ID: "1", Name: "data", Machine: "gpu-1", Status: c.status}
			if c.status != dstack.VolumeSubmitted && c.status != dstack.VolumeProvisioning {
				v.ExternalID = "dstack-data-1"
			}
			if c.change != nil {
				c.change(&v)
			}
			step, err := Decide(v, testTime)
			if err != nil || step.Action != c.action {
				t.Fatalf("the action is %q, %v", step.Action, err)
			}
			step = step.After(v, c.found, testTime)
			if step.To != c.to || step.IsGone != c.gone || !strings.Contains(string(step.Reason), c.reason) || c.reason == "" && step.Reason != "" {
				t.Errorf("the step is %+v", step)
			}
			if c.never != step.Due.IsZero() || !c.never && step.Due != testTime.Add(c.due) {
				t.Errorf("it is due at %v", step.Due)
			}
			if got := step.Failures > v.Failures; got != c.hasFailure {
				t.Errorf("failures: %d", step.Failures)
			}
		})
	}
	if _, err := Decide(dstack.Volume{Status: "new"}, testTime); err == nil {
		t.Error("an unknown status is accepted")
	}
}

func TestApplyAgain(t *testing.T) {
	machine := dstack.Offer{Key: "ssh", OwnedInstance: "new", Type: "gpu-1", Fleet: "lab"}
	failed := dstack.Volume{Status: dstack.VolumeFailed, Instance: "old", ExternalID: "dstack-data-1", Failures: 3}
	if v, ok := ApplyAgain(failed, machine); !ok || v.Status != dstack.VolumeSubmitted || v.Instance != "new" || v.Fleet != "lab" || v.Backend != "ssh" ||
		v.ExternalID != "dstack-data-1" || v.Failures != 0 {
		t.Errorf("%t %+v", ok, v)
	}
	if _, ok := ApplyAgain(dstack.Volume{Status: dstack.VolumeActive}, machine); ok {
		t.Error("an active volume is created again")
	}
}

func TestCheckDeletion(t *testing.T) {
	if err := CheckDeletion(dstack.Volume{Name: "data"}); err != nil {
		t.Error(err)
	}
	err := CheckDeletion(dstack.Volume{Name: "data", Runs: []string{"a", "b"}})
	if dstack.KindOf(err) != dstack.Conflict || err.Error() != "cannot delete the volume data: the runs a and b use it" {
		t.Error(err)
	}
}

func TestChooseMachine(t *testing.T) {
	here := dstack.Offer{Backend: "local", Region: "local", Type: "box", OwnedInstance: "here"}
	one := dstack.Offer{Backend: "ssh", Region: "remote", Type: "gpu-1", Fleet: "lab", OwnedInstance: "one"}
	two := dstack.Offer{Backend: "ssh", Region: "remote", Type: "gpu-2", Fleet: "lab", OwnedInstance: "two"}
	twin := dstack.Offer{Backend: "ssh", Region: "remote", Type: "gpu-2", Fleet: "attic", OwnedInstance: "twin"}
	cloud := dstack.Offer{Backend: "ssh", Type: "rented"}
	all := []dstack.Offer{here, one, two, cloud}
	for name, c := range map[string]struct {
		conf   spec.Volume
		offers []dstack.Offer
		want   dstack.InstanceID
		kind   dstack.Kind
		says   string // parts of the error and its hint, separated by |
	}{
		"the server's machine":        {spec.Volume{Backend: "local"}, all, "here", "", ""},
		"by its name":                 {spec.Volume{Backend: "local", Host: "box"}, all, "here", "", ""},
		"by its region":               {spec.Volume{Backend: "local", Region: "local"}, all, "here", "", ""},
		"another name":                {spec.Volume{Backend: "local", Region: "bx"}, all, "", dstack.NotFound, "there is no host bx|did you mean box?"},
		"a host":                      {spec.Volume{Backend: "remote", Host: "gpu-2"}, all, "two", "", ""},
		"a host as region":            {spec.Volume{Backend: "remote", Region: "GPU-1"}, all, "one", "", ""},
		"the only host":               {spec.Volume{Backend: "remote"}, []dstack.Offer{here, one}, "one", "", ""},
		"several hosts":               {spec.Volume{Backend: "remote"}, all, "", dstack.Invalid, "several hosts could have the volume|gpu-1 and gpu-2|add host:"},
		"an unknown host":             {spec.Volume{Backend: "remote", Host: "tpu"}, all, "", dstack.NotFound, "there is no host tpu|there is: gpu-1 and gpu-2"},
		"the server is no host":       {spec.Volume{Backend: "remote", Host: "box"}, all, "", dstack.NotFound, "there is no host box"},
		"the region of hosts is none": {spec.Volume{Backend: "remote", Region: "remote"}, []dstack.Offer{one}, "", dstack.NotFound, "there is no host remote"},
		"no host":                     {spec.Volume{Backend: "remote"}, []dstack.Offer{here}, "", dstack.NotFound, "a host of a fleet|apply a fleet"},
		"two of the same name": {spec.Volume{Backend: "remote", Host: "gpu-2"}, []dstack.Offer{two, twin}, "", dstack.Invalid,
			"several fleets have a host gpu-2|FLEET/HOST: attic/gpu-2 and lab/gpu-2"},
		"with its fleet": {spec.Volume{Backend: "remote", Host: "attic/gpu-2"}, []dstack.Offer{two, twin}, "twin", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ChooseMachine(c.conf, c.offers)
			if got.OwnedInstance != c.want || (err == nil) != (c.kind == "") || err != nil && dstack.KindOf(err) != c.kind {
				t.Fatalf("got %q, %v", got.OwnedInstance, err)
			}
			checkSays(t, err, c.says)
		})
	}
}

func checkSays(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil {
		return
	}
	text := describe(err)
	for part := range strings.SplitSeq(says, "|") {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in %q", part, text)
		}
	}
}

func testVolumes() []dstack.Volume {
	return []dstack.Volume{
		{Name: "data", Status: dstack.VolumeActive, Machine: "gpu-1", Instance: "one", ExternalID: "dstack-data-1"},
		{Name: "cache", Status: dstack.VolumeActive, Machine: "gpu-2", Instance: "two", ExternalID: "/srv/cache", IsExternal: true, Warning: "may grow"},
		{Name: "new", Status: dstack.VolumeProvisioning, Machine: "gpu-1", Instance: "one"},
		{Name: "bad", Status: dstack.VolumeFailed, Reason: "there is no folder /x", Machine: "gpu-1", Instance: "one"},
		{Name: "old", Status: dstack.VolumeDeleting, Machine: "gpu-1", Instance: "one"},
	}
}

func serviceWith(replicas int, mounts ...spec.Mount) spec.Service {
	return spec.Service{Volumes: mounts, Replicas: spec.Replicas{Min: replicas, Max: replicas}}
}

func TestCheckMounts(t *testing.T) {
	for name, c := range map[string]struct {
		mounts []spec.Mount
		kind   dstack.Kind
		says   string
	}{
		"active":                   {[]spec.Mount{{Name: "data", Path: "/d"}}, "", ""},
		"about to be active":       {[]spec.Mount{{Name: "new", Path: "/d"}, {Name: "data", Path: "/e"}}, "", ""},
		"unknown":                  {[]spec.Mount{{Name: "dta", Path: "/d"}}, dstack.Invalid, "there is no volume dta in project main|did you mean data?"},
		"unknown, nothing near":    {[]spec.Mount{{Name: "models", Path: "/d"}}, dstack.Invalid, "the project has: data, cache, new, bad and old"},
		"failed":                   {[]spec.Mount{{Name: "bad", Path: "/d"}}, dstack.Conflict, "the volume bad has failed: there is no folder /x|active: data and cache"},
		"deleting":                 {[]spec.Mount{{Name: "old", Path: "/d"}}, dstack.Conflict, "the volume old is being deleted|active: data and cache"},
		"one of a list":            {[]spec.Mount{{Name: "bad", OtherNames: []string{"cache"}, Path: "/d"}}, "", ""},
		"an unknown one in a list": {[]spec.Mount{{Name: "data", OtherNames: []string{"nothing"}, Path: "/d"}}, dstack.Invalid, "no volume nothing"},
		"different machines": {[]spec.Mount{{Name: "data", Path: "/d"}, {Name: "cache", Path: "/e"}}, dstack.Invalid,
			"no machine has all volumes|the volume data is on gpu-1, the volume cache is on gpu-2"},
		"the same path": {[]spec.Mount{{Name: "data", Path: "/d"}, {InstancePath: "/x", Path: "/d"}}, dstack.Invalid, "two volumes are mounted at /d"},
		"folders only":  {[]spec.Mount{{InstancePath: "/x", Path: "/d"}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckMounts(serviceWith(1, c.mounts...), "main", testVolumes())
			if (err == nil) != (c.kind == "") || err != nil && dstack.KindOf(err) != c.kind {
				t.Fatal(err)
			}
			checkSays(t, err, c.says)
		})
	}
}

// A replica starts only where its volumes are active; a plan also counts those that are being created.
func TestFindPin(t *testing.T) {
	volumes := testVolumes()
	if FindPin(serviceWith(1, spec.Mount{InstancePath: "/x", Path: "/d"}), volumes) != nil {
		t.Error("a folder of the machine pins a replica")
	}
	waiting := serviceWith(1, spec.Mount{Name: "new", Path: "/d"})
	if now, later := FindPin(waiting, volumes), FindPlannedPin(waiting, volumes); len(now.Machines) != 0 || len(later.Machines) != 1 ||
		!strings.Contains(now.Reason, "the volume new is not ready on gpu-1 yet") {
		t.Errorf("now %+v, later %+v", now, later)
	}
	if pin := FindPin(serviceWith(1, spec.Mount{Name: "lost", Path: "/d"}), volumes); len(pin.Machines) != 0 || !strings.Contains(pin.Reason, "does not exist any more") {
		t.Errorf("%+v", pin)
	}
	list := serviceWith(2, spec.Mount{Name: "data", OtherNames: []string{"cache"}, Path: "/d"})
	if pin := FindPin(list, volumes); len(pin.Machines) != 2 || pin.Reason != "the volume data is on gpu-1, the volume cache is on gpu-2" {
		t.Errorf("%+v", pin)
	}
	notes := strings.Join(Notes(list, volumes), "\n")
	if !strings.Contains(notes, "replicas on different machines see different data") || !strings.Contains(notes, "volume cache: may grow") {
		t.Error(notes)
	}
	if notes := Notes(serviceWith(3, spec.Mount{Name: "data", Path: "/d"}), volumes); len(notes) != 1 || !strings.Contains(notes[0], "all replicas run on one machine") {
		t.Error(notes)
	}
}

func TestBuildMounts(t *testing.T) {
	s := serviceWith(1, spec.Mount{Name: "data", OtherNames: []string{"cache"}, Path: "/d"}, spec.Mount{InstancePath: "/x", Path: "/e", Optional: true})
	folder := dstack.Mount{Kind: dstack.MountHostPath, Source: "/x", Target: "/e", Optional: true}
	for instance, want := range map[dstack.InstanceID][]dstack.Mount{
		"one": {{Kind: dstack.MountVolume, Source: "dstack-data-1", Target: "/d", IsKept: true}, folder},
		"two": {{Kind: dstack.MountHostPath, Source: "/srv/cache", Target: "/d"}, folder},
	} {
		got, err := BuildMounts(s, testVolumes(), dstack.Instance{ID: instance})
		if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("on %s: %+v, %v", instance, got, err)
		}
	}
	if _, err := BuildMounts(s, testVolumes(), dstack.Instance{ID: "three"}); dstack.KindOf(err) != dstack.NotFound || !strings.Contains(err.Error(), "cannot mount /d") {
		t.Error(err)
	}
}
