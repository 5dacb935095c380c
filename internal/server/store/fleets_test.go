package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// The host keys of the tests, and the fingerprint that ssh-keygen prints of the second.
const (
	hostKeyA      = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH9E1yVvRRYFqqbUCGpTSLsNU4c7bnnJtFsS2vj5LJ1s"
	hostKeyB      = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	fingerprintB  = "SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk"
	canaryKey     = "-----BEGIN OPENSSH PRIVATE KEY----- canary"
	canaryJumpKey = "jump-canary"
)

// fleet returns a fleet with hosts as an API call has it: hosts are address or
// address@jump address.
func (h *fixture) fleet(hosts ...string) dstack.Fleet {
	f := dstack.Fleet{Project: h.project.ID, Name: "boxes", Author: "admin"}
	text := fmt.Sprintf(`{"type": "fleet", "name": "boxes", "env": {"MODE": "env-canary"}, "resources": {"cpu": "16.."}, "ssh_config": {"user": "ubuntu",
		"ssh_key": {"public": "", "private": %q}, "hosts": ["192.0.2.1"]}}`, canaryKey)
	h.noError(json.Unmarshal([]byte(text), &f.Configuration))
	for _, name := range hosts {
		address, jump, hasJump := strings.Cut(name, "@")
		host := dstack.Host{Name: address, Env: map[string]string{"MODE": "env-canary"},
			Login: dstack.SSHLogin{Address: address + ":22", User: "ubuntu", PrivateKey: canaryKey}}
		if hasJump {
			host.Jump = &dstack.SSHLogin{Address: jump + ":22", User: "jumper", PrivateKey: canaryJumpKey}
		}
		f.Hosts = append(f.Hosts, host)
	}
	return f
}

func (h *fixture) applyFleet(f dstack.Fleet, now time.Time) dstack.Fleet {
	h.t.Helper()
	applied, err := h.s.ApplyFleet(h.ctx(), f, now)
	h.noError(err)
	return applied
}

// host returns a host of all fleets by name, with its keys.
func (h *fixture) host(name string) dstack.Host {
	h.t.Helper()
	hosts, err := h.s.ListHosts(h.ctx())
	h.noError(err)
	i := slices.IndexFunc(hosts, func(host dstack.Host) bool { return host.Name == name })
	if i < 0 {
		h.t.Fatalf("there is no host %s", name)
	}
	return hosts[i]
}

func TestFleet_KeepsHostsThatStay(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		first := h.applyFleet(h.fleet("a", "b"), t0)
		if len(first.Hosts) != 2 || first.Hosts[0].Num != 0 || first.Hosts[1].Num != 1 || first.Hosts[0].Check.Status != dstack.HostPending {
			t.Fatalf("%+v", first.Hosts)
		}
		a := h.host("a")
		if a.Login.PrivateKey != canaryKey || a.Env["MODE"] != "env-canary" || a.FleetName != "boxes" || a.ProjectName != "Main" || !a.AppliedAt.Equal(t0) {
			t.Errorf("%+v", a)
		}
		if min := a.Resources.CPU.Min; !a.Resources.Explicit.CPU || min == nil || *min != 16 || a.Resources.Explicit.Memory {
			t.Errorf("resources %+v", a.Resources)
		}
		if env, err := h.s.HostEnv(t.Context(), a.ID); err != nil || env["MODE"] != "env-canary" {
			t.Errorf("%v, %v", env, err)
		}
		if env, err := h.s.HostEnv(t.Context(), "local"); err != nil || len(env) > 0 {
			t.Errorf("%v, %v", env, err)
		}
		if key, err := h.s.PinHostKey(t.Context(), a.ID, false, hostKeyA); key != hostKeyA {
			t.Errorf("pinned %q, %v", key, err)
		}
		if key, err := h.s.PinHostKey(t.Context(), a.ID, false, hostKeyB); key != hostKeyA {
			t.Errorf("another key replaced the pinned one: %q, %v", key, err)
		}
		check := dstack.HostCheck{Status: dstack.HostReady, CheckedAt: t0.Add(time.Second), NextAt: t0.Add(time.Minute), Found: dstack.HostFacts{System: "Debian"}}
		h.noError(h.s.SaveHostCheck(t.Context(), a.ID, check))
		h.restart()

		later := t0.Add(time.Hour)
		next := h.fleet("a", "c")
		next.Hosts[0].Login.PrivateKey = "" // as from a client without the key
		second := h.applyFleet(next, later)
		again := h.host("a")
		if again.ID != a.ID || again.Num != 0 || again.Login.HostKey != hostKeyA || again.Login.PrivateKey != canaryKey ||
			again.Check.Found.System != "Debian" || !again.Check.NextAt.IsZero() || !again.AppliedAt.Equal(later) {
			t.Errorf("the kept host: %+v", again)
		}
		// b had no replicas, so it is gone at once, and its number is not used again.
		if len(second.Hosts) != 2 || second.Hosts[1].Name != "c" || second.Hosts[1].Num != 2 || second.ID != first.ID || !second.CreatedAt.Equal(t0) {
			t.Errorf("%+v", second)
		}
		check.AppliedAt, check.Status = t0, dstack.HostFailed // a check that began before
		h.noError(h.s.SaveHostCheck(t.Context(), a.ID, check))
		if got := h.host("a").Check.Status; got != dstack.HostReady {
			t.Errorf("a check of the earlier login was saved: %s", got)
		}
	})
}

func TestFleet_NewHostNeedsKey(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		f := h.fleet("a")
		f.Hosts[0].Login.PrivateKey = ""
		_, err := h.s.ApplyFleet(t.Context(), f, t0)
		h.wantKind(dstack.Invalid, err)
		if _, err := h.s.FindFleet(t.Context(), h.project.ID, "boxes"); dstack.KindOf(err) != dstack.NotFound {
			t.Errorf("half of it was applied: %v", err)
		}
	})
}

// A changed host key is accepted only when the configuration names its fingerprint.
func TestFleet_FingerprintReplacesPinnedKey(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.applyFleet(h.fleet("a@j", "b@j"), t0)
		a := h.host("a")
		for _, isJump := range []bool{false, true} {
			_, err := h.s.PinHostKey(t.Context(), a.ID, isJump, hostKeyA)
			h.noError(err)
		}
		if b := h.host("b"); b.Jump.HostKey != hostKeyA || b.Login.HostKey != "" {
			t.Errorf("the jump host of b: %+v", b.Jump)
		}
		h.applyFleet(h.fleet("a@j", "b@j", "c@j"), t0)
		if c := h.host("c"); c.Jump.HostKey != hostKeyA || c.Jump.PrivateKey != canaryJumpKey {
			t.Errorf("a new host behind the same jump host: %+v", c.Jump)
		}
		f := h.fleet("a@j", "b@j2")
		f.Hosts[0].Login.Fingerprints = []string{fingerprintB}
		h.applyFleet(f, t0)
		if got := h.host("a").Login; got.HostKey != "" || !slices.Equal(got.Fingerprints, f.Hosts[0].Login.Fingerprints) {
			t.Errorf("%+v", got)
		}
		if b := h.host("b"); b.Jump.HostKey != "" {
			t.Errorf("another jump host has the key of the one before: %+v", b.Jump)
		}
		_, err := h.s.PinHostKey(t.Context(), "unknown", false, hostKeyA)
		h.wantKind(dstack.NotFound, err)
	})
}

func TestHostKeyFingerprint(t *testing.T) {
	if got := dstack.HostKeyFingerprint(hostKeyB + " comment"); got != fingerprintB {
		t.Errorf("got %s", got)
	}
	if got := dstack.HostKeyFingerprint("nonsense"); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestFleet_KeysAreSealed(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		f := h.fleet("a@j", "b")
		f.Configuration.SSH.Key = spec.NewSentSSHKey(canaryKey)
		h.applyFleet(f, t0)
		for _, query := range []string{"SELECT configuration FROM fleets", "SELECT access FROM hosts", "SELECT name || address || username || health FROM hosts"} {
			rows, err := h.openRaw().Query(query)
			h.noError(err)
			for rows.Next() {
				var stored string
				h.noError(rows.Scan(&stored))
				if strings.Contains(stored, "canary") {
					t.Errorf("%s: %s", query, stored)
				}
			}
			h.noError(rows.Err())
			h.noError(rows.Close())
		}
		found, err := h.s.FindFleet(t.Context(), h.project.ID, "boxes")
		h.noError(err)
		text, err := json.Marshal(found)
		h.noError(err)
		if all := string(text) + fmt.Sprintf("%+v %#v", found, found); strings.Contains(all, canaryKey) || strings.Contains(all, canaryJumpKey) {
			t.Errorf("a fleet shows its keys: %s", all)
		}
		_, err = h.openRaw().Exec("UPDATE hosts SET access = (SELECT access FROM hosts WHERE name = 'a') WHERE name = 'b'")
		h.noError(err)
		if b := h.host("b"); b.Login.PrivateKey != "" {
			t.Error("the keys of one host open in the row of another")
		}
		if a := h.host("a"); a.Login.PrivateKey != canaryKey {
			t.Error("a host without keys holds up the others")
		}
	})
}

func TestFleet_InUse(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		applied := h.applyFleet(h.fleet("a", "b"), t0)
		h.placeReplica(applied.Hosts[0].ID)
		err := h.s.DeleteFleets(t.Context(), h.project.ID, []string{"boxes"}, t0)
		h.wantKind(dstack.Conflict, err)
		if err.Error() != "Failed to delete fleet boxes. Fleet is in use." {
			t.Errorf("got %v", err)
		}
		h.wantKind(dstack.Conflict, h.s.DeleteHosts(t.Context(), h.project.ID, "boxes", []int{0}, t0))
		h.wantKind(dstack.NotFound, h.s.DeleteHosts(t.Context(), h.project.ID, "boxes", []int{1, 7}, t0))
		h.noError(h.s.DeleteHosts(t.Context(), h.project.ID, "boxes", []int{1}, t0))

		// A host that is missing in the configuration stays until its replicas are gone.
		applied = h.applyFleet(h.fleet("c"), t0)
		if len(applied.Hosts) != 2 || !applied.Hosts[0].IsLeaving || applied.Hosts[1].Name != "c" {
			t.Fatalf("%+v", applied.Hosts)
		}
		back := h.applyFleet(h.fleet("a", "c"), t0)
		if back.Hosts[0].IsLeaving || back.Hosts[0].ID != applied.Hosts[0].ID {
			t.Errorf("a host that came back: %+v", back.Hosts[0])
		}

		drained, err := h.s.SetDraining(t.Context(), h.project.ID, "boxes", []int{0}, true, t0)
		h.noError(err)
		if !drained.Hosts[0].IsDraining || drained.Hosts[1].IsDraining {
			t.Errorf("%+v", drained.Hosts)
		}
		h.noError(h.s.DeleteFleets(t.Context(), h.project.ID, []string{"boxes"}, t0))
		f, err := h.s.FindFleet(t.Context(), h.project.ID, "boxes")
		h.noError(err)
		if !f.IsDeleting || len(f.Hosts) != 1 || !f.Hosts[0].IsLeaving {
			t.Errorf("%+v", f)
		}
		if some, err := h.s.RemoveLeftHosts(t.Context()); some || err != nil {
			t.Errorf("%t, %v", some, err)
		}
		_, err = h.openRaw().Exec("UPDATE replicas SET live = FALSE")
		h.noError(err)
		if some, err := h.s.RemoveLeftHosts(t.Context()); !some || err != nil {
			t.Errorf("%t, %v", some, err)
		}
		_, err = h.s.FindFleet(t.Context(), h.project.ID, "boxes")
		h.wantKind(dstack.NotFound, err)
		if some, err := h.s.RemoveLeftHosts(t.Context()); some || err != nil {
			t.Errorf("%t, %v", some, err)
		}
	})
}

// placeReplica puts a replica of a new run on an instance.
func (h *fixture) placeReplica(id dstack.InstanceID) {
	h.t.Helper()
	_, r := h.replica("web", t0)
	_, err := h.openRaw().Exec("UPDATE replicas SET instance_id = '" + string(id) + "' WHERE id = '" + string(r.ID) + "'")
	h.noError(err)
}

func TestFleet_Projects(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.applyFleet(h.fleet("a"), t0)
		other := dstack.Project{ID: dstack.ProjectID(uuid.NewString()), Name: "other", Owner: h.user.ID, CreatedAt: t0}
		h.noError(h.s.CreateProject(t.Context(), other))
		if _, err := h.s.FindFleet(t.Context(), other.ID, "boxes"); dstack.KindOf(err) != dstack.NotFound {
			t.Errorf("another project sees it: %v", err)
		}
		h.wantKind(dstack.NotFound, h.s.DeleteFleets(t.Context(), other.ID, []string{"boxes"}, t0))
		f := h.fleet("a")
		f.Project = other.ID
		h.applyFleet(f, t0.Add(time.Second))
		fleets, err := h.s.ListFleets(t.Context(), []dstack.ProjectID{other.ID, h.project.ID})
		h.noError(err)
		if len(fleets) != 2 || fleets[0].ProjectName != "Main" || fleets[1].ProjectName != "other" {
			t.Errorf("%+v", fleets)
		}
		h.noError(h.s.DeleteProjects(t.Context(), []string{"other"}))
		if hosts, err := h.s.ListHosts(t.Context()); len(hosts) != 1 || err != nil {
			t.Errorf("hosts of a deleted project stay: %d, %v", len(hosts), err)
		}
	})
}
