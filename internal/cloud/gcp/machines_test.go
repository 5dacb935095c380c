package gcp_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/cloud"
	"dstack/internal/cloud/gcp"
	"dstack/internal/cloud/gcp/computetest"
	"dstack/internal/dstack"
)

func newID() dstack.InstanceID { return dstack.InstanceID(uuid.NewString()) }

func listMachines(t *testing.T, p cloud.Provider) map[dstack.InstanceID]cloud.Machine {
	t.Helper()
	list, err := p.ListMachines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byID := map[dstack.InstanceID]cloud.Machine{}
	for _, m := range list {
		if _, isDouble := byID[m.Instance]; isDouble {
			t.Errorf("the instance %s is there twice: %+v", m.Instance, list)
		}
		byID[m.Instance] = m
	}
	return byID
}

func mustLaunch(t *testing.T, p cloud.Provider, l cloud.Launch) cloud.Machine {
	t.Helper()
	m, err := p.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMachines_Reasons: why machines ended that nobody asked to end, also if no server ran meanwhile.
func TestMachines_Reasons(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	ids := map[string]dstack.InstanceID{}
	refs := map[string]string{}
	for _, name := range []string{"preempted", "removed", "stopped", "terminated", "kept", "lost while no server ran"} {
		l := newLaunch(newID(), "e2-standard-2", "us-central1-a")
		l.Offer.Spot = name == "preempted" || name == "lost while no server ran"
		ids[name], refs[name] = l.Instance, mustLaunch(t, p, l).Ref
	}
	listMachines(t, p)
	s.Interrupt(refs["preempted"])
	s.Remove(refs["removed"], "ann@example.com")
	s.Stop(refs["stopped"])
	if err := p.Terminate(t.Context(), []cloud.Machine{{Ref: refs["terminated"]}}); err != nil { // its zone is not known
		t.Fatal(err)
	}
	check := func(found map[dstack.InstanceID]cloud.Machine, name string, state cloud.MachineState, cause dstack.FailureCause, message string) {
		t.Helper()
		m := found[ids[name]]
		f := dstack.MachineFailure{}
		if m.Failure != nil {
			f = *m.Failure
		}
		if m.State != state || f.Cause != cause || !strings.Contains(f.Message, message) {
			t.Errorf("%s: %+v, failure %+v", name, m, f)
		}
	}
	for range 2 { // the reasons stay
		found := listMachines(t, p)
		check(found, "preempted", cloud.MachineEnded, dstack.FailurePreempted, "us-central1-a needed the capacity of e2-standard-2")
		check(found, "removed", cloud.MachineEnded, dstack.FailureBroken, "ann@example.com deleted the machine")
		check(found, "stopped", cloud.MachineEnding, dstack.FailureBroken, "the machine was stopped, and not by dstack")
		check(found, "terminated", "", "", "")
		check(found, "kept", cloud.MachineRunning, "", "")
	}
	s.Interrupt(refs["lost while no server ran"])
	again := openProvider(t, newSettings(s), "i")
	found := listMachines(t, again)
	check(found, "lost while no server ran", cloud.MachineEnded, dstack.FailurePreempted, "took the spot machine back")
	check(found, "kept", cloud.MachineRunning, "", "")
	if other := listMachines(t, openProvider(t, newSettings(s), "other")); len(other) > 0 {
		t.Errorf("another installation sees %+v", other)
	}
}

// TestMachines_TwoServers: a machine that another server of the installation ended has no failure, and asking why costs
// nothing where this server ended it.
func TestMachines_TwoServers(t *testing.T) {
	s := startServer(t, computetest.Options{Steps: computetest.Steps{Terminated: time.Minute}})
	one, two := openProvider(t, newSettings(s), "i"), openProvider(t, newSettings(s), "i")
	l := newLaunch(newID(), "e2-standard-2", "us-central1-a")
	m := mustLaunch(t, one, l)
	listMachines(t, one)
	listMachines(t, two)
	if err := two.Terminate(t.Context(), []cloud.Machine{m}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		before := s.CountCalls("zoneOperations.list")
		if got := listMachines(t, two)[l.Instance]; got.Failure != nil || s.CountCalls("zoneOperations.list") > before {
			t.Errorf("%+v, failure %+v, or it asked why", got, got.Failure)
		}
		if got := listMachines(t, one)[l.Instance]; got.Failure != nil {
			t.Errorf("%+v, failure %+v", got, got.Failure)
		}
		s.Advance(time.Minute)
	}
}

// TestMachines_ManyAtOnce: two hundred machines are asked for with about as many requests, many at a time: in half a second
// on a machine that does nothing else, where each answer takes 50 ms. One after another they would take ten.
func TestMachines_ManyAtOnce(t *testing.T) {
	s := startServer(t, computetest.Options{Latency: 50 * time.Millisecond, Steps: computetest.Steps{Running: time.Minute}})
	s.SetQuota("us-central1", "CPUS", 1000)
	p := openProvider(t, newSettings(s), "i")
	began := time.Now()
	var calls sync.WaitGroup
	for range 200 {
		calls.Go(func() {
			if _, err := p.Launch(t.Context(), newLaunch(newID(), "e2-standard-2", "us-central1-a")); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	took, asked := time.Since(began), s.CountCalls("")
	if s.Advance(time.Hour); took > 9*time.Second || asked > 210 || len(listMachines(t, p)) != 200 {
		t.Errorf("it took %s and %d requests", took, asked)
	}
	t.Logf("it took %s and %d requests", took, asked)
}

// TestMachines_FailedLaunch: the operation of a launch fails after the answer, also for a server that has restarted. Until
// then the machine is listed, although GET knows it for a moment only.
func TestMachines_FailedLaunch(t *testing.T) {
	s := startServer(t, computetest.Options{Steps: computetest.Steps{Refused: time.Minute, Lag: time.Hour}})
	s.SetCapacity(computetest.Place{Zone: "us-central1-a", Type: "e2-standard-2"}, 0)
	p := openProvider(t, newSettings(s), "i")
	l := newLaunch(newID(), "e2-standard-2", "us-central1-a")
	m := mustLaunch(t, p, l)
	if got := listMachines(t, p)[l.Instance]; got.State != cloud.MachinePending || got.Ref != m.Ref {
		t.Errorf("%+v, want a machine that may come", got)
	}
	s.Advance(2 * time.Minute)
	got := listMachines(t, p)[l.Instance]
	if got.State != cloud.MachineEnded || got.Failure == nil || got.Failure.Cause != dstack.FailureNoCapacity || len(got.Failure.Zones) == 0 {
		t.Errorf("%+v, failure %+v", got, got.Failure)
	}
	again := openProvider(t, newSettings(s), "i")
	if found := listMachines(t, again); len(found) > 0 {
		t.Errorf("after a restart: %+v", found)
	}
	if _, err := again.Launch(t.Context(), l); dstack.KindOf(err) != dstack.NoCapacity {
		t.Errorf("the repeated launch: %v, want the answer of the first", err)
	}
	if left := s.Instances(); len(left) > 0 {
		t.Errorf("machines %+v", left)
	}
	// The zone has room again.
	s.SetCapacity(computetest.Place{Zone: "us-central1-a", Type: "e2-standard-2"}, 1)
	if _, err := again.Launch(t.Context(), l); err != nil || len(s.Instances()) != 1 {
		t.Errorf("%v, machines %+v", err, s.Instances())
	}
	third := openProvider(t, newSettings(s), "i") // it has forgotten that the first request failed
	if m, err := third.Launch(t.Context(), l); err != nil || m.Instance != l.Instance || len(s.Instances()) != 1 {
		t.Errorf("%+v, %v, machines %+v", m, err, s.Instances())
	}
}

// TestMachines_Lag: a machine that lists do not show yet has not ended, and one that they cease to show for a moment
// neither.
func TestMachines_Lag(t *testing.T) {
	s := startServer(t, computetest.Options{Steps: computetest.Steps{Lag: time.Minute}})
	p := openProvider(t, newSettings(s), "i")
	l := newLaunch(newID(), "e2-standard-2", "us-central1-a")
	mustLaunch(t, p, l)
	for range 3 {
		if m, listed := listMachines(t, p)[l.Instance]; listed && m.State == cloud.MachineEnded {
			t.Errorf("%+v", m)
		}
	}
	s.Advance(time.Minute)
	if m := listMachines(t, p)[l.Instance]; m.State != cloud.MachineRunning {
		t.Errorf("%+v", m)
	}
	s.Hide(true)
	if m, listed := listMachines(t, p)[l.Instance]; listed {
		t.Errorf("%+v, although nothing says that it has ended", m)
	}
	s.Hide(false)
	if m := listMachines(t, p)[l.Instance]; m.State != cloud.MachineRunning {
		t.Errorf("%+v", m)
	}
}

// TestMachines_Requests: at rest, all machines together cost one request, for each page.
func TestMachines_Requests(t *testing.T) {
	s := startServer(t, computetest.Options{PageSize: 2})
	s.SetQuota("us-central1", "CPUS", 1000)
	p := openProvider(t, newSettings(s), "i")
	for n := range 5 {
		mustLaunch(t, p, newLaunch(newID(), "e2-standard-2", "us-central1-"+string(rune('a'+n%3))))
	}
	listMachines(t, p)
	before := s.CountCalls("")
	if found := listMachines(t, p); len(found) != 5 {
		t.Errorf("%d machines", len(found))
	}
	if got := s.CountCalls("") - before; got != 3 {
		t.Errorf("%d requests for three pages", got)
	}
	tokens := s.CountCalls("token")
	if tokens != 1 {
		t.Errorf("%d tokens", tokens)
	}
}

// TestMachines_AnswersAreLost: each request of a launch, and of its end, is carried out without an answer, or not carried
// out. Repeated, the launch makes one machine, and nothing stays.
func TestMachines_AnswersAreLost(t *testing.T) {
	for _, isDone := range []bool{true, false} {
		for n := range 12 {
			t.Run(fmt.Sprintf("request %d, carried out: %t", n, isDone), func(t *testing.T) {
				s := startServer(t, computetest.Options{})
				p := openProvider(t, newSettings(s), "i")
				l := newLaunch(newID(), "n2-standard-8", "us-central1-a")
				l.Group = "g"
				s.CutAfter(n, isDone)
				repeat(t, func() error { _, err := p.Launch(t.Context(), l); return err })
				if got := len(s.Instances()); got != 1 {
					t.Errorf("%d machines", got)
				}
				m := listMachines(t, p)[l.Instance]
				repeat(t, func() error { return p.Terminate(t.Context(), []cloud.Machine{m}) })
				if found := listMachines(t, p); len(s.Instances()) > 0 || len(s.Disks()) > 0 || found[l.Instance].Failure != nil {
					t.Errorf("machines %+v, disks %+v, listed %+v", s.Instances(), s.Disks(), found)
				}
			})
		}
	}
}

// repeat calls a function until it succeeds.
func repeat(t *testing.T, call func() error) {
	t.Helper()
	for range 5 {
		err := call()
		if err == nil {
			return
		}
		if dstack.KindOf(err) != dstack.Unavailable {
			t.Fatal(err)
		}
	}
	t.Fatal("it does not succeed")
}

// TestMachines_Throttled: requests that are too many are repeated, and the wait that the API asks for is kept.
func TestMachines_Throttled(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	s.Throttle("instances.aggregatedList", 1, time.Second)
	began := time.Now()
	listMachines(t, p)
	if took := time.Since(began); took < time.Second {
		t.Errorf("it was asked again after %s, want a second", took)
	}
	defer s.Throttle("instances.aggregatedList", 0, time.Minute)()
	began = time.Now()
	_, err := p.ListMachines(t.Context())
	if f := failureOf(err); dstack.KindOf(err) != dstack.Unavailable || f.RetryAfter != time.Minute || time.Since(began) > 5*time.Second {
		t.Errorf("%v, failure %+v, after %s", err, f, time.Since(began))
	}
}

// TestMachines_Terminate: it is told which machine could not be ended, and the others end.
func TestMachines_Terminate(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	one := mustLaunch(t, p, newLaunch(newID(), "e2-standard-2", "us-central1-a"))
	two := mustLaunch(t, p, newLaunch(newID(), "e2-standard-2", "us-central1-b"))
	restore := s.Inject(computetest.Fault{Method: "instances.delete", Zone: "us-central1-a", Status: http.StatusForbidden, Reason: "forbidden",
		Message: "Required 'compute.instances.delete' permission for 'projects/test-project/zones/us-central1-a/instances/x'"})
	err := p.Terminate(t.Context(), []cloud.Machine{one, two})
	if dstack.KindOf(err) != dstack.Forbidden || !strings.Contains(err.Error(), "compute.instances.delete") || len(s.Instances()) != 1 {
		t.Errorf("%v, machines %+v", err, s.Instances())
	}
	restore()
	if err := p.Terminate(t.Context(), []cloud.Machine{one, two}); err != nil || len(s.Instances()) > 0 {
		t.Errorf("%v, machines %+v", err, s.Instances())
	}
}

// A region with a typo does not disturb the others.
func TestCheckAccess_OneOfTheRegions(t *testing.T) {
	s := startServer(t, computetest.Options{})
	settings := newSettings(s)
	settings.Regions = []string{"us-centrall", "us-east1"}
	err := openProvider(t, settings, "i").CheckAccess(t.Context())
	regions, _ := errors.AsType[cloud.RegionErrors](err)
	if len(regions) != 1 || regions["us-centrall"] == nil || !strings.Contains(err.Error(), "GCP has no region us-centrall") {
		t.Errorf("%v, by region %v", err, regions)
	}
}

func TestCheckAccess(t *testing.T) {
	denied := func(permissions ...string) func(*computetest.Server, *gcp.Settings) {
		return func(s *computetest.Server, _ *gcp.Settings) {
			s.SetAccount(computetest.DefaultAccount, computetest.Account{Denied: permissions})
		}
	}
	set := func(change func(*gcp.Settings)) func(*computetest.Server, *gcp.Settings) {
		return func(_ *computetest.Server, s *gcp.Settings) { change(s) }
	}
	for _, c := range []struct {
		name          string
		change        func(*computetest.Server, *gcp.Settings)
		kind          dstack.Kind // empty: nothing is wrong
		message, hint string
	}{
		{"all is well", func(*computetest.Server, *gcp.Settings) {}, "", "", ""},
		{"regions and images", set(func(s *gcp.Settings) {
			s.Regions, s.Images.CPU = []string{"us-east1"}, computetest.DefaultImages[0]
		}), "", "", ""},
		{"missing rights", denied("compute.instances.create", "compute.disks.delete"), dstack.Forbidden,
			"lacks permissions in the project test-project: compute.instances.create, compute.disks.delete", "roles/compute.instanceAdmin.v1"},
		{"missing rights on the network", denied("compute.firewalls.create"), dstack.Forbidden, "compute.firewalls.create", "roles/compute.securityAdmin"},
		{"another project", set(func(s *gcp.Settings) { s.ProjectID = "other-project" }), dstack.Forbidden, "there is no project other-project", "project_id"},
		{"a region with a typo", set(func(s *gcp.Settings) { s.Regions = []string{"us-centrall"} }), dstack.Forbidden, "GCP has no region us-centrall", "did you mean us-central1?"},
		{"a zone instead of a region", set(func(s *gcp.Settings) { s.Regions = []string{"asia-south1"} }), dstack.Forbidden, "GCP has no region asia-south1", "write one of europe-west4, us-central1, us-east1"},
		{"a VPC that does not exist", set(func(s *gcp.Settings) { s.VPCName = "vpc-1" }), dstack.Forbidden, "the VPC vpc-1 of the project test-project has no subnets, or does not exist", "vpc_name"},
		{"no image", set(func(s *gcp.Settings) { s.Images.Nvidia = "projects/test-project/global/images/mine" }), dstack.Forbidden, "there is no image projects/test-project/global/images/mine", "os_images"},
		{"an account that was deleted", func(s *computetest.Server, _ *gcp.Settings) {
			s.SetAccount(computetest.DefaultAccount, computetest.Account{IsDeleted: true})
		}, dstack.Unauthorized, "Google refuses the credentials of dstack@test-project.iam.gserviceaccount.com: Invalid grant: account not found", "key"},
		{"the API is off", func(s *computetest.Server, _ *gcp.Settings) {
			s.Inject(computetest.Fault{Method: "projects.get", Status: 403, Reason: "accessNotConfigured", Message: "Compute Engine API has not been used in project 1 before or it is disabled."})
		}, dstack.Forbidden, "the Compute Engine API is not enabled in the project test-project", "gcloud services enable compute.googleapis.com --project test-project"},
		{"rights cannot be asked for", func(s *computetest.Server, _ *gcp.Settings) {
			s.Inject(computetest.Fault{Method: "iam.testIamPermissions", Status: 403, Reason: "accessNotConfigured", Message: "Cloud Resource Manager API has not been used"})
		}, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startServer(t, computetest.Options{})
			settings := newSettings(s)
			c.change(s, &settings)
			before := len(s.Instances()) + len(s.Objects("firewalls"))
			err := openProvider(t, settings, "i").CheckAccess(t.Context())
			if c.kind == "" && err != nil || c.kind != "" && (err == nil || dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.message)) {
				t.Errorf("%v", err)
			}
			if hint := hintOf(err); !strings.Contains(hint, c.hint) {
				t.Errorf("the hint is %q", hint)
			}
			if len(s.Instances())+len(s.Objects("firewalls")) != before {
				t.Error("it changed something")
			}
		})
	}
}

// TestRights: the rights that documents ask users for are those that the provider uses.
func TestRights(t *testing.T) {
	networks := []computetest.Network{{Project: computetest.DefaultProject, Name: "default",
		Subnets: map[string]string{"us-central1": "default"}, NAT: map[string]bool{"us-central1": true}}}
	steps := computetest.Steps{Other: time.Minute, Disk: time.Minute, Running: time.Minute}
	s := startServer(t, computetest.Options{Networks: networks, Steps: steps})
	settings := newSettings(s)
	settings.PublicIPs = false
	p := gcp.Open(settings, gcp.Options{Installation: "i"})
	defer p.Close()
	p.HurryWith(10 * time.Millisecond) // operations are read
	l := newLaunch("one", "n2-standard-8", "us-central1-a")
	l.Group = "g"
	d := cloud.Disk{Volume: "v", Region: "us-central1", Zone: "us-central1-a", SizeMiB: 20 << 10}
	var m cloud.Machine
	for _, step := range []func() error{
		func() error { return p.CheckAccess(t.Context()) },
		func() (err error) { m, err = p.Launch(t.Context(), l); return err },
		func() (err error) { d, err = p.CreateDisk(t.Context(), d); return err },
		func() error { _, err := p.ListMachines(t.Context()); return err },
		func() error { return p.AttachDisk(t.Context(), d, m) },
		func() error { return p.DetachDisk(t.Context(), d, m) },
		func() error { _, err := p.ListDisks(t.Context(), nil); return err },
		func() error { _, err := p.ListTypes(t.Context(), "us-central1"); return err },
		func() error { _, err := p.ListQuotas(t.Context(), "us-central1"); return err },
		func() error { s.Remove(m.Ref, "ann@example.com"); _, err := p.ListMachines(t.Context()); return err },
		func() error { return p.DeleteDisk(t.Context(), d) },
		func() error {
			left, err := p.ListLeftovers(t.Context())
			for _, l := range left {
				if err == nil {
					err = p.DeleteLeftover(t.Context(), l)
				}
			}
			return err
		},
		func() error { return p.Terminate(t.Context(), []cloud.Machine{m}) },
	} {
		for try := 0; ; try++ {
			err := step()
			if err == nil {
				break
			}
			if try == 3 {
				t.Fatal(err)
			}
			s.Advance(time.Hour)
		}
		s.Advance(time.Hour)
	}
	documented := map[string]bool{}
	for _, r := range append(gcp.Rights(), gcp.NetworkRights()...) {
		documented[r.Name] = true
	}
	used := s.Permissions()
	for _, name := range used {
		if !documented[name] {
			t.Errorf("%s is used, and not documented", name)
		}
		delete(documented, name)
	}
	for name := range documented { // needed by a request of another name
		if !strings.Contains(name, ".use") && !strings.Contains(name, ".set") && name != "compute.networks.updatePolicy" {
			t.Errorf("%s is documented, and not used by %v", name, used)
		}
	}
}
