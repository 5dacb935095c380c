package store_test

import (
	"bytes"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

func rentedOffer() dstack.Offer {
	return dstack.Offer{Backend: "aws", Key: "aws", Region: "north", Zone: "north-a", Type: "small", Price: 0.1}
}

// The keys of a machine are recorded before it is requested, sealed, and stay the same when that is repeated.
func TestRentedHosts_KeepTheirFirstKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.replica("web", t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{
			To: dstack.ReplicaStarting, NewAttempt: true, Placement: &dstack.Placement{Offer: rentedOffer()}, Due: t0,
		}, t0)
		_, r = h.reread(run.ID)
		id := r.Instance
		host := dstack.RentedHost{
			Instance: id, Backend: "aws", Offer: rentedOffer(), Region: "north", CreatedAt: t0, HostSecret: "PRIVATE host",
			Login: dstack.SSHLogin{User: "dstack", PrivateKey: "PRIVATE login", HostKey: "ssh-ed25519 AAAA"},
		}
		if _, isNew, err := h.s.AddRentedHost(h.ctx(), host); !isNew || err != nil {
			t.Fatalf("new %t, %v", isNew, err)
		}
		other := host
		other.Login.PrivateKey = "PRIVATE other"
		again, isNew, err := h.s.AddRentedHost(h.ctx(), other)
		if h.noError(err); isNew || again.Login.PrivateKey != "PRIVATE login" || again.HostSecret != "PRIVATE host" {
			t.Errorf("new %t, %+v", isNew, again)
		}
		if bytes.Contains(h.everything(), []byte("PRIVATE")) {
			t.Error("a key is in clear in the database")
		}

		host.Ref, host.Zone, host.Login.Address, host.Check = "i-1", "north-a", "192.0.2.1:22", dstack.HostCheck{Status: dstack.HostReady}
		host.ReadyAt = t0.Add(time.Minute)
		h.noError(h.s.SaveRentedHost(h.ctx(), host))
		late := host
		late.Ref, late.Login.Address, late.ReadyAt = "", "", t0.Add(time.Hour) // of a server that does not know the machine yet
		h.noError(h.s.SaveRentedHost(h.ctx(), late))
		got, err := h.s.ListRentedHosts(h.ctx(), "aws")
		if h.noError(err); len(got) != 1 {
			t.Fatalf("got %+v", got)
		}
		if g := got[0]; g.Ref != "i-1" || g.Login.Address != "192.0.2.1:22" || !g.ReadyAt.Equal(t0.Add(time.Minute)) || g.Login.PrivateKey != "PRIVATE login" ||
			g.Offer.Type != "small" || g.Status != dstack.InstanceCreating || g.Check.Status != dstack.HostReady {
			t.Errorf("got %+v", g)
		}
		if others, err := h.s.ListRentedHosts(h.ctx(), "aws-other"); err != nil || len(others) != 0 {
			t.Errorf("another backend has %+v, %v", others, err)
		}
		counts, err := h.s.CountRentedHosts(h.ctx())
		if h.noError(err); len(counts) != 1 || counts["aws"] != 1 {
			t.Errorf("counts %v", counts)
		}
		instances, _, err := h.s.ListRented(h.ctx())
		if h.noError(err); !instances[id] || len(instances) != 1 {
			t.Errorf("instances %v", instances)
		}
	})
}

// What is left over is remembered from when it was seen first until it is not found any more.
func TestLeftovers_AreRememberedWhileTheyAreFound(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		machine := dstack.Leftover{Kind: "machine", Ref: "i-1", Region: "north", Detail: "small"}
		disk := dstack.Leftover{Kind: "disk", Ref: "vol-1", Region: "north"}
		save := func(backend string, at time.Time, found ...dstack.Leftover) []dstack.Leftover {
			t.Helper()
			got, err := h.s.SaveLeftovers(h.ctx(), backend, found, at)
			h.noError(err)
			return got
		}
		save("aws", t0, machine)
		save("gcp", t0, machine)
		machine.RemovedAt, machine.LastError = t0.Add(time.Hour), "it is busy"
		save("aws", t0.Add(time.Hour), machine, disk)
		machine.RemovedAt, machine.LastError = time.Time{}, ""
		got := save("aws", t0.Add(2*time.Hour), machine)
		if len(got) != 1 || !got[0].FirstSeenAt.Equal(t0) || !got[0].LastSeenAt.Equal(t0.Add(2*time.Hour)) || !got[0].RemovedAt.Equal(t0.Add(time.Hour)) ||
			got[0].LastError != "" || got[0].Detail != "small" {
			t.Errorf("got %+v", got)
		}
		all, err := h.s.ListLeftovers(h.ctx())
		if h.noError(err); len(all) != 2 || all[0].Backend != "aws" || all[1].Backend != "gcp" {
			t.Errorf("got %+v", all)
		}
	})
}
