package gcp_test

import (
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/cloud/gcp"
	"dstack/internal/cloud/gcp/computetest"
	"dstack/internal/dstack"
)

func TestProvider_FollowsTheContract(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps computetest.Steps
	}{
		{"at once", computetest.Steps{}},
		{"late", computetest.Steps{Lag: time.Minute, Refused: time.Minute, Running: 2 * time.Minute, Terminated: time.Minute, Disk: 30 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cloudtest.Run(t, func(t *testing.T) cloudtest.Fixture { return newFixture(t, c.steps) })
		})
	}
}

// startServer starts a stand-in that checks requests against the API's document, if the tests were given it.
func startServer(t testing.TB, o computetest.Options) *computetest.Server {
	t.Helper()
	o.Document = computetest.FindDocument()
	s, err := computetest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// newSettings returns settings for a stand-in.
func newSettings(s *computetest.Server) gcp.Settings {
	return gcp.Settings{ProjectID: computetest.DefaultProject, Credentials: gcp.Credentials{Data: s.KeyFile("")}, PublicIPs: true, Endpoint: s.URL}
}

func openProvider(t testing.TB, settings gcp.Settings, i dstack.Installation) *gcp.Provider {
	p := gcp.Open(settings, gcp.Options{Installation: i})
	p.Hurry()
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func newFixture(t *testing.T, steps computetest.Steps) cloudtest.Fixture {
	s := startServer(t, computetest.Options{Steps: steps})
	zone := "us-central1-a"
	unrefuse := func() {}
	return cloudtest.Fixture{
		Open:    func(t *testing.T, i dstack.Installation) cloud.Provider { return openProvider(t, newSettings(s), i) },
		Offer:   dstack.Offer{Region: "us-central1", Zone: zone, Type: "e2-standard-2"},
		Another: dstack.Offer{Region: "us-central1", Zone: zone, Type: "n2-standard-8"},
		Timeout: 10 * time.Second,
		Wait:    func() { s.Advance(10 * time.Second) },
		Refuse: func(_ *testing.T, r cloudtest.Refusal) {
			unrefuse()
			unrefuse = refuse(s, r)
		},
		LoseAnswer: func(*testing.T) {
			s.Inject(computetest.Fault{Method: "instances.insert", Cut: true, Done: true, Times: 1})
		},
		EndNext: func(*testing.T) {
			s.Inject(computetest.Fault{Method: "instances.insert", Code: "ZONE_RESOURCE_POOL_EXHAUSTED", Status: 503, Message: "none is left", Times: 1})
		},
		Preempt:    func(_ *testing.T, m cloud.Machine) { s.Interrupt(m.Ref) },
		FailRegion: func(*testing.T) func() { return s.FailZone("us-east1-b") },
		Hang:       func(*testing.T) func() { return s.Inject(computetest.Fault{Hang: true}) },
		AddDisk: func(*testing.T) cloud.Disk {
			s.AddDisk(computetest.Disk{Name: "training-data", Zone: zone, SizeGB: 20})
			return cloud.Disk{Ref: "training-data", Region: "us-central1", Zone: zone}
		},
		Count: func(*testing.T) int { return len(s.Instances()) },
		UserData: func(_ *testing.T, ref string) []byte {
			for _, i := range s.Instances() {
				if i.Name == ref {
					return i.UserData
				}
			}
			return nil
		},
		Foreign: func(t *testing.T) cloud.Machine {
			s.AddInstance(computetest.Instance{Name: "mine", Zone: zone, Type: "e2-standard-2"})
			return cloud.Machine{Ref: "mine"}
		},
		Secondary: func(*testing.T) cloud.Launch {
			return cloud.Launch{Offer: dstack.Offer{Region: "europe-west4", Zone: "europe-west4-a", Type: "e2-standard-2"}}
		},
		Leftover: func(t *testing.T, p cloud.Provider) {
			offer := dstack.Offer{Region: "us-central1", Zone: zone, Type: "n2-standard-8"}
			m, err := p.Launch(t.Context(), cloud.Launch{Instance: "gone", Offer: offer, Group: "g", Name: "gone", Token: cloud.NewToken("suite", "gone", offer)})
			if err != nil {
				t.Fatal(err)
			}
			s.Advance(time.Hour)
			if err := p.Terminate(t.Context(), []cloud.Machine{m}); err != nil {
				t.Fatal(err)
			}
			s.Advance(time.Hour)
			s.SetSteps(computetest.Steps{})
		},
	}
}

// refuse makes launches fail.
func refuse(s *computetest.Server, r cloudtest.Refusal) (restore func()) {
	switch r {
	case cloudtest.NoCapacity:
		return s.Inject(computetest.Fault{Method: "instances.insert", Status: 503, Reason: "resource_availability", Message: "none is left"})
	case cloudtest.NoQuota:
		return s.Inject(computetest.Fault{Method: "instances.insert", Status: 403, Reason: "quotaExceeded", Message: "Quota 'CPUS' exceeded.  Limit: 24.0 in region us-central1."})
	case cloudtest.NotAuthorized:
		s.SetAccount(computetest.DefaultAccount, computetest.Account{IsDeleted: true})
		return func() { s.SetAccount(computetest.DefaultAccount, computetest.Account{}) }
	case cloudtest.NotAllowed:
		s.SetAccount(computetest.DefaultAccount, computetest.Account{Denied: []string{"compute.instances.create"}})
		return func() { s.SetAccount(computetest.DefaultAccount, computetest.Account{}) }
	case cloudtest.TooManyLaunches:
		return s.Throttle("instances.insert", 0, 20*time.Second)
	default:
		return func() {}
	}
}
