package backendtest_test

import (
	"errors"
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/dstack"
)

func newOptions(latency backendtest.Latency) backendtest.FakeOptions {
	hardware := dstack.Hardware{CPUs: 8, MemoryMiB: 32 << 10, DiskMiB: 100 << 10}
	return backendtest.FakeOptions{Latency: latency, Offers: []dstack.Offer{
		{Backend: "fake", Region: "north", Type: "small", Hardware: hardware, Price: 1},
		{Backend: "fake", Region: "south", Type: "spot", Hardware: hardware, Price: 0.5, Spot: true},
		{Backend: "fake", Region: "north", Type: "box", Hardware: hardware, OwnedInstance: "box"},
	}}
}

func TestFake_FollowsTheContract(t *testing.T) {
	for _, c := range []struct {
		name    string
		latency backendtest.Latency
	}{
		{"at once", backendtest.Latency{}},
		{"late", backendtest.Latency{Listed: 5 * time.Millisecond, Running: 10 * time.Millisecond, Gone: 10 * time.Millisecond}},
		{"listed after it runs", backendtest.Latency{Listed: 10 * time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			backendtest.Run(t, func(*testing.T) backendtest.Fixture {
				fake := backendtest.NewFake(newOptions(c.latency))
				return backendtest.Fixture{
					Open:    func(*testing.T) backend.Backend { return fake },
					Timeout: 5 * time.Second,
					RefuseCreation: func(_ *testing.T, kind dstack.Kind) {
						if kind == "" {
							fake.SetFaults(backendtest.Faults{})
							return
						}
						fake.SetFaults(backendtest.Faults{Create: &dstack.Error{Kind: kind, Message: "refused"}})
					},
					CreateDisk: func(*testing.T) string {
						fake.AddDisk("disk", 2048)
						return "disk"
					},
				}
			})
		})
	}
}

func TestFake_Faults(t *testing.T) {
	failure := errors.New("injected")
	request := backend.CreateRequest{Instance: "i", Offer: dstack.Offer{Type: "small"}}
	newFake := func(faults backendtest.Faults) *backendtest.Fake {
		fake := backendtest.NewFake(newOptions(backendtest.Latency{}))
		fake.SetFaults(faults)
		return fake
	}
	exists := func(t *testing.T, fake *backendtest.Fake, want bool) {
		t.Helper()
		if _, ok := fake.Existing()["i"]; ok != want {
			t.Errorf("the machine exists: %t, want %t", ok, want)
		}
	}
	t.Run("one instance type has no capacity", func(t *testing.T) {
		fake := newFake(backendtest.Faults{CreateOf: map[string]error{"small": failure}})
		if err := fake.Create(t.Context(), request); !errors.Is(err, failure) {
			t.Error(err)
		}
		exists(t, fake, false)
		if err := fake.Create(t.Context(), backend.CreateRequest{Instance: "i", Offer: dstack.Offer{Type: "spot"}}); err != nil {
			t.Error(err)
		}
		exists(t, fake, true)
	})
	t.Run("a failed creation makes the machine nevertheless", func(t *testing.T) {
		fake := newFake(backendtest.Faults{Create: failure, CreateAnyway: true})
		if err := fake.Create(t.Context(), request); !errors.Is(err, failure) {
			t.Error(err)
		}
		exists(t, fake, true)
		if err := fake.Create(t.Context(), request); err != nil || fake.Created() != 1 {
			t.Errorf("%d machines, %v", fake.Created(), err)
		}
	})
	t.Run("a deletion is accepted and not done", func(t *testing.T) {
		fake := newFake(backendtest.Faults{IgnoreDeletes: true})
		if err := errors.Join(fake.Create(t.Context(), request), fake.Delete(t.Context(), "i")); err != nil {
			t.Error(err)
		}
		exists(t, fake, true)
	})
	t.Run("a machine is lost", func(t *testing.T) {
		fake := newFake(backendtest.Faults{})
		if err := fake.Create(t.Context(), request); err != nil {
			t.Error(err)
		}
		fake.Lose("i")
		exists(t, fake, false)
	})
	t.Run("a machine fails", func(t *testing.T) {
		fake := newFake(backendtest.Faults{})
		if err := fake.Create(t.Context(), request); err != nil {
			t.Error(err)
		}
		fake.Fail("i", dstack.MachineFailure{Cause: dstack.FailurePreempted})
		machines, err := fake.Machines(t.Context())
		if m := machines["i"]; err != nil || m.State != dstack.MachineFailed || m.Failure.Cause != dstack.FailurePreempted {
			t.Errorf("machine %+v, %v", m, err)
		}
	})
	t.Run("a leaked machine is listed", func(t *testing.T) {
		fake := newFake(backendtest.Faults{})
		fake.Leak("i")
		if machines, err := fake.Machines(t.Context()); err != nil || !machines["i"].IsAlive() {
			t.Errorf("machines %+v, %v", machines, err)
		}
	})
	t.Run("a listing fails", func(t *testing.T) {
		fake := newFake(backendtest.Faults{List: failure})
		if _, err := fake.Machines(t.Context()); !errors.Is(err, failure) || fake.Calls().Machines != 1 {
			t.Errorf("%v, %+v", err, fake.Calls())
		}
	})
}
