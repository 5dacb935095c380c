package cloudtest_test

import (
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
)

func newLaunch(id dstack.InstanceID, place cloudtest.Place) cloud.Launch {
	offer := dstack.Offer{Region: place.Region, Zone: place.Zone, Type: place.Type, Spot: place.Spot}
	return cloud.Launch{Instance: id, Offer: offer, Name: "dstack-" + string(id), Token: cloud.NewToken("i", id, offer)}
}

func TestAccount_Faults(t *testing.T) {
	small := cloudtest.Place{Region: "north", Zone: "north-a", Type: "small"}
	expect := func(t *testing.T, err error, kind dstack.Kind) {
		t.Helper()
		if err == nil && kind != "" || err != nil && dstack.KindOf(err) != kind {
			t.Errorf("the error is %v, want the kind %q", err, kind)
		}
	}
	expectAlive := func(t *testing.T, a *cloudtest.Account, want int) {
		t.Helper()
		if alive := a.Alive(); len(alive) != want {
			t.Errorf("%d machines are alive, want %d: %+v", len(alive), want, alive)
		}
	}
	t.Run("a zone without capacity", func(t *testing.T) {
		a := cloudtest.NewAccount(cloudtest.AccountOptions{})
		a.SetCapacity(small, 1)
		p := a.Open("i")
		_, err := p.Launch(t.Context(), newLaunch("one", small))
		expect(t, err, "")
		_, err = p.Launch(t.Context(), newLaunch("two", small))
		expect(t, err, dstack.NoCapacity)
		_, err = p.Launch(t.Context(), newLaunch("three", cloudtest.Place{Region: "north", Zone: "north-b", Type: "small"}))
		expect(t, err, "")
		m, err := p.Launch(t.Context(), newLaunch("four", cloudtest.Place{Region: "north", Type: "small"}))
		expect(t, err, "")
		if m.Zone != "north-b" {
			t.Errorf("the zone is %s, want the one with room", m.Zone)
		}
		expectAlive(t, a, 3)
	})
	t.Run("a quota", func(t *testing.T) {
		a := cloudtest.NewAccount(cloudtest.AccountOptions{})
		a.SetQuotas("north", cloud.Quota{Name: "standard", Types: []string{"small", "large"}, CPUs: 9})
		p := a.Open("i")
		_, err := p.Launch(t.Context(), newLaunch("one", small))
		expect(t, err, "")
		_, err = p.Launch(t.Context(), newLaunch("two", cloudtest.Place{Region: "north", Zone: "north-a", Type: "large"}))
		expect(t, err, dstack.NoCapacity)
		_, err = p.Launch(t.Context(), newLaunch("three", cloudtest.Place{Region: "north", Zone: "north-a", Type: "large", Spot: true}))
		expect(t, err, "")
		expectAlive(t, a, 2)
	})
	t.Run("a lost answer", func(t *testing.T) {
		a := cloudtest.NewAccount(cloudtest.AccountOptions{})
		p := a.Open("i")
		a.SetFaults(cloudtest.Faults{Launch: map[cloudtest.Place]error{{}: cloudtest.NewTimeoutError()}, LaunchAnyway: true})
		_, err := p.Launch(t.Context(), newLaunch("one", small))
		expect(t, err, dstack.Unavailable)
		a.SetFaults(cloudtest.Faults{})
		_, err = p.Launch(t.Context(), newLaunch("one", small))
		expect(t, err, "")
		expectAlive(t, a, 1)
	})
	t.Run("a termination that is ignored", func(t *testing.T) {
		a := cloudtest.NewAccount(cloudtest.AccountOptions{})
		p := a.Open("i")
		m, err := p.Launch(t.Context(), newLaunch("one", small))
		expect(t, err, "")
		a.SetFaults(cloudtest.Faults{IgnoreTerminate: true})
		expect(t, p.Terminate(t.Context(), []cloud.Machine{m}), "")
		expectAlive(t, a, 1)
	})
	t.Run("a listing that lags", func(t *testing.T) {
		now := time.Unix(1e9, 0)
		a := cloudtest.NewAccount(cloudtest.AccountOptions{
			Latency: cloudtest.Latency{Listed: time.Minute, Running: 2 * time.Minute}, Now: func() time.Time { return now },
		})
		p := a.Open("i")
		_, err := p.Launch(t.Context(), newLaunch("one", small))
		expect(t, err, "")
		for _, c := range []struct {
			after time.Duration
			want  cloud.MachineState
		}{{time.Minute - 1, ""}, {1, cloud.MachinePending}, {time.Minute, cloud.MachineRunning}} {
			now = now.Add(c.after)
			list, err := p.ListMachines(t.Context())
			expect(t, err, "")
			if c.want == "" && len(list) > 0 || c.want != "" && (len(list) != 1 || list[0].State != c.want) {
				t.Errorf("machines %+v, want %q", list, c.want)
			}
		}
		expectAlive(t, a, 1)
	})
	t.Run("the hooks of a machine", func(t *testing.T) {
		var booted, ended []string
		a := cloudtest.NewAccount(cloudtest.AccountOptions{
			OnBoot: func(m cloud.Machine, l cloud.Launch) (string, error) {
				booted = append(booted, m.Ref+" "+l.UserData)
				return "127.0.0.9", nil
			},
			OnEnd: func(m cloud.Machine) { ended = append(ended, m.Ref) },
		})
		p := a.Open("i")
		l := newLaunch("one", small)
		l.UserData = "#!/bin/sh"
		m, err := p.Launch(t.Context(), l)
		expect(t, err, "")
		list, err := p.ListMachines(t.Context())
		expect(t, err, "")
		if len(list) != 1 || list[0].Address != "127.0.0.9" || len(booted) != 1 || booted[0] != m.Ref+" #!/bin/sh" {
			t.Errorf("machines %+v, booted %q", list, booted)
		}
		expect(t, p.Terminate(t.Context(), list), "")
		if a.Alive(); len(ended) != 1 || ended[0] != m.Ref {
			t.Errorf("ended %q", ended)
		}
	})
}
