package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"dstack/internal/decide/fleet"
	"dstack/internal/dstack"
)

var now = time.Date(2026, 11, 29, 4, 0, 0, 0, time.UTC)

func host(id, address, jump string) dstack.Host {
	h := dstack.Host{ID: dstack.InstanceID(id), Name: address, Login: dstack.SSHLogin{Address: address, User: "u", PrivateKey: "key"}}
	if jump != "" {
		h.Jump = &dstack.SSHLogin{Address: jump, User: "j", PrivateKey: "jump key"}
	}
	return h
}

func merge(known, wanted []dstack.Host) []dstack.Host {
	next := 0
	return fleet.MergeHosts(known, wanted, 10, func() dstack.InstanceID {
		next++
		return dstack.InstanceID(fmt.Sprintf("new%d", next))
	}, now)
}

func describe(hosts []dstack.Host) (text string) {
	for _, h := range hosts {
		text += fmt.Sprintf("%s=%s", h.Name, h.ID)
		if h.IsLeaving {
			text += " leaves"
		}
		text += ", "
	}
	return text
}

func TestMergeHosts_Identity(t *testing.T) {
	known := []dstack.Host{host("a", "10.0.0.1:22", ""), host("b", "10.0.0.2:22", "j1"), host("c", "10.0.0.2:22", "j2")}
	otherUser := host("", "10.0.0.1:22", "")
	otherUser.Login.User = "root"
	for name, one := range map[string]struct {
		wanted []dstack.Host
		want   string
	}{
		"the same":              {[]dstack.Host{host("", "10.0.0.1:22", "")}, "10.0.0.1:22=a, 10.0.0.2:22=b leaves, 10.0.0.2:22=c leaves, "},
		"another port":          {[]dstack.Host{host("", "10.0.0.1:2222", "")}, "10.0.0.1:2222=new1, 10.0.0.1:22=a leaves, 10.0.0.2:22=b leaves, 10.0.0.2:22=c leaves, "},
		"another user":          {[]dstack.Host{otherUser}, "10.0.0.1:22=new1, 10.0.0.1:22=a leaves, 10.0.0.2:22=b leaves, 10.0.0.2:22=c leaves, "},
		"behind two jump hosts": {[]dstack.Host{host("", "10.0.0.2:22", "j2"), host("", "10.0.0.2:22", "j1")}, "10.0.0.2:22=c, 10.0.0.2:22=b, 10.0.0.1:22=a leaves, "},
		"a new jump host":       {[]dstack.Host{host("", "10.0.0.1:22", "j3")}, "10.0.0.1:22=a, 10.0.0.2:22=b leaves, 10.0.0.2:22=c leaves, "},
	} {
		if got := describe(merge(known, one.wanted)); got != one.want {
			t.Errorf("%s: got %s; want %s", name, got, one.want)
		}
	}
}

// A private key is kept for the user and the address that it was given for, never for others.
func TestMergeHosts_KeepsKeys(t *testing.T) {
	known := []dstack.Host{host("a", "10.0.0.1:22", "j1")}
	wanted := host("", "10.0.0.1:22", "j1")
	wanted.Login.PrivateKey, wanted.Jump.PrivateKey = "", ""
	if got := merge(known, []dstack.Host{wanted})[0]; got.Login.PrivateKey != "key" || got.Jump.PrivateKey != "jump key" {
		t.Errorf("%+v", got)
	}
	otherJump := host("", "10.0.0.1:22", "j2")
	otherJump.Login.PrivateKey, otherJump.Jump.PrivateKey = "", ""
	if got := merge(known, []dstack.Host{otherJump})[0]; got.Login.PrivateKey != "key" || got.Jump.PrivateKey != "" {
		t.Errorf("the key of one jump host was given to another: %+v", got.Jump)
	}
	otherUser := host("", "10.0.0.1:22", "j1")
	otherUser.Jump.PrivateKey, otherUser.Jump.User = "", "root"
	if got := merge(known, []dstack.Host{otherUser})[0]; got.Jump.PrivateKey != "" {
		t.Errorf("the key of one user was given to another: %+v", got.Jump)
	}
}

func TestMergeHosts_StartsChecks(t *testing.T) {
	known := []dstack.Host{host("a", "10.0.0.1:22", "")}
	known[0].Check = dstack.HostCheck{Status: dstack.HostFailed, NextAt: now.Add(time.Hour), CheckedAt: now.Add(-time.Minute)}
	next := merge(known, []dstack.Host{host("", "10.0.0.1:22", ""), host("", "10.0.0.9:22", "")})
	if kept := next[0]; kept.Check.Status != dstack.HostFailed || !kept.Check.NextAt.IsZero() || kept.IsChecked() {
		t.Errorf("%+v", kept)
	}
	if added := next[1]; added.Check.Status != dstack.HostPending || added.Num != 10 || added.IsChecked() {
		t.Errorf("%+v", added)
	}
	next[0].Check.CheckedAt = now
	if !next[0].IsChecked() {
		t.Error("a check after the fleet was applied does not count")
	}
}
