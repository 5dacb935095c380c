package ssh

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// memoryHosts keeps hosts in memory.
type memoryHosts struct {
	mu     sync.Mutex
	hosts  []dstack.Host
	saves  int
	failed error // what every call returns
}

var _ Hosts = (*memoryHosts)(nil)

func (m *memoryHosts) ListHosts(context.Context) ([]dstack.Host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.hosts), m.failed
}

func (m *memoryHosts) PinHostKey(_ context.Context, id dstack.InstanceID, isJump bool, key string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.hosts {
		h := &m.hosts[i]
		login := &h.Login
		if isJump {
			jump := *h.Jump
			h.Jump, login = &jump, &jump
		}
		if h.ID == id {
			if login.HostKey == "" {
				login.HostKey = key
			}
			return login.HostKey, m.failed
		}
	}
	return "", &dstack.Error{Kind: dstack.NotFound}
}

func (m *memoryHosts) SaveHostCheck(_ context.Context, id dstack.InstanceID, check dstack.HostCheck) error {
	m.change(id, func(h *dstack.Host) {
		m.saves++
		h.Check = check
	})
	return m.failed
}

// change changes a host.
func (m *memoryHosts) change(id dstack.InstanceID, change func(h *dstack.Host)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.hosts {
		if m.hosts[i].ID == id {
			change(&m.hosts[i])
		}
	}
}

// add adds a host to the fleet "rack" of the project p.
func (m *memoryHosts) add(id dstack.InstanceID, login dstack.SSHLogin) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hosts = append(m.hosts, dstack.Host{
		ID: id, Name: string(id), Num: len(m.hosts), Fleet: "f", FleetName: "rack", Project: "p", ProjectName: "main", Login: login,
		CreatedAt: time.Now(), AppliedAt: time.Now(), Check: dstack.HostCheck{Status: dstack.HostPending},
	})
}

// remove removes a host.
func (m *memoryHosts) remove(id dstack.InstanceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hosts = slices.DeleteFunc(m.hosts, func(h dstack.Host) bool { return h.ID == id })
}

func (m *memoryHosts) get(id dstack.InstanceID) (found dstack.Host) {
	m.change(id, func(h *dstack.Host) { found = *h })
	return found
}

// waitFor waits until the check of a host is as wanted, and returns it.
func (m *memoryHosts) waitFor(t *testing.T, id dstack.InstanceID, what string, is func(c dstack.HostCheck) bool) dstack.HostCheck {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c := m.get(id).Check; is(c) {
			return c
		}
	}
	t.Fatalf("the host %s is not %s: %+v", id, what, m.get(id).Check)
	return dstack.HostCheck{}
}

func (m *memoryHosts) waitForStatus(t *testing.T, id dstack.InstanceID, want dstack.HostStatus) dstack.HostCheck {
	t.Helper()
	return m.waitFor(t, id, string(want), func(c dstack.HostCheck) bool { return c.Status == want })
}

// racingHosts has another server that pins another key first.
type racingHosts struct{ memoryHosts }

func (r *racingHosts) PinHostKey(context.Context, dstack.InstanceID, bool, string) (string, error) {
	return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGqOther", nil
}

// open returns a backend whose tasks run until the test ends.
func open(t *testing.T, hosts Hosts, change ...func(o *Options)) *Backend {
	t.Helper()
	o := Options{Hosts: hosts, Installation: "backend-test"}
	for _, c := range change {
		c(&o)
	}
	b := New(o)
	b.loginScript, b.pingInterval = testLoginScript, 100*time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, b.Tasks()...) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// testLoginScript looks for the stand-ins of a fakeHost alone. On other hosts it is
// loginScript.
var testLoginScript = strings.NewReplacer(
	"/var/run/docker.sock", "${FAKE_SOCKET:-/var/run/docker.sock}", `PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/snap/bin"`, "",
).Replace(loginScript)
