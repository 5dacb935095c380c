package local

import (
	"testing"

	"dstack/internal/dstack"
)

func TestLocal_OffersItsMachine(t *testing.T) {
	l, err := New(t.Context(), Options{Engine: "process", Dir: t.TempDir(), Installation: "here", HostID: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	offers, err := l.Offers(t.Context(), dstack.Requirements{})
	if err != nil || len(offers) != 1 {
		t.Fatal(offers, err)
	}
	o := offers[0]
	if o.OwnedInstance != "local-abc-process" || o.Host != "abc" || o.Key != "local-process" || !o.Engine.SharesPorts || o.Engine.Containers {
		t.Errorf("offer %+v", o)
	}
	if o.Hardware.CPUs < 1 || o.Hardware.MemoryMiB < 64 || o.Hardware.DiskMiB < 1 {
		t.Errorf("hardware %+v", o.Hardware)
	}
	machines, err := l.Machines(t.Context())
	if err != nil || !machines[o.OwnedInstance].IsAlive() {
		t.Errorf("machines %+v, %v", machines, err)
	}
	if _, err := l.Engine(t.Context(), o.OwnedInstance); err != nil {
		t.Error(err)
	}
	if _, err := l.Engine(t.Context(), "local-abc-docker"); dstack.KindOf(err) != dstack.NotFound {
		t.Errorf("another engine's instance: %v", err)
	}
}

func TestNew_UnknownEngine(t *testing.T) {
	if _, err := New(t.Context(), Options{Engine: "podman", Dir: t.TempDir()}); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("got %v", err)
	}
}
