package ssh

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// offered returns the IDs of the hosts that are offered.
func offered(t *testing.T, b *Backend) (ids []string) {
	t.Helper()
	offers, err := b.Offers(t.Context(), dstack.Requirements{Project: "p"})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offers {
		ids = append(ids, string(o.OwnedInstance))
	}
	return ids
}

func TestBackend_FindsWhatAHostHas(t *testing.T) {
	h, login := newFakeHost(t)
	h.stub("nvidia-smi", "echo '0, GPU-aa11, NVIDIA L4, 23034, 550.54.15, 8.9, [N/A]'") // a stand-in with the output of a real one
	hosts := &memoryHosts{}
	hosts.add("a", login)
	b := open(t, hosts)
	c := hosts.waitForStatus(t, "a", dstack.HostReady)
	f := c.Found
	if f.DockerVersion != "27.3.1" || f.DockerAPI != "1.47" || f.DockerAccess != dstack.DockerSocket || f.EngineID != *h.engineID.Load() {
		t.Errorf("Docker %+v", f)
	}
	if len(f.Hardware.GPUs) != 1 || f.Hardware.GPUs[0].Name != "L4" || f.DriverVersion != "550.54.15" || f.Hardware.CPUs < 1 || f.System == "" || f.MachineID == "" {
		t.Errorf("hardware %+v", f)
	}
	if len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], "NVIDIA Container Toolkit") {
		t.Errorf("warnings %q", f.Warnings)
	}
	if key := hosts.get("a").Login.HostKey; !strings.HasPrefix(key, "ssh-ed25519 ") {
		t.Errorf("pinned %q", key)
	}
	if got := offered(t, b); !slices.Equal(got, []string{"a"}) {
		t.Errorf("offered %v", got)
	}
	if offers, _ := b.Offers(t.Context(), dstack.Requirements{Project: "other"}); len(offers) > 0 {
		t.Errorf("another project is offered %+v", offers)
	}
	eng, err := b.Engine(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if reports, err := eng.ListReports(t.Context()); err != nil || len(reports) > 0 {
		t.Errorf("reports %v, %v", reports, err)
	}
	hosts.change("a", func(h *dstack.Host) { h.IsDraining = true })
	eventually(t, "draining", func() bool {
		machines, _ := b.Machines(t.Context())
		offers, _ := b.Offers(t.Context(), dstack.Requirements{})
		return machines["a"].IsDraining && offers[0].IsDraining
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
	}
}

func TestBackend_FindsAWayToDocker(t *testing.T) {
	const denied = `case $* in *dial-stdio*) echo "permission denied while trying to connect to the Docker daemon socket" >&2; exit 1;; esac`
	for _, c := range []struct {
		name    string
		prepare func(h *fakeHost)
		want    dstack.DockerAccess
	}{
		{"the socket is not forwarded", func(h *fakeHost) { h.refuses.Store(true) }, dstack.DockerStdio},
		{"only sudo may", func(h *fakeHost) {
			h.refuses.Store(true)
			h.stub("sudo", `[ "$1" = -n ] && DSTACK_TEST_BRIDGE=`+h.socket()+` exec `+os.Args[0])
			h.stub("docker", denied)
		}, dstack.DockerSudoStdio},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, login := newFakeHost(t)
			c.prepare(h)
			hosts := &memoryHosts{}
			hosts.add("a", login)
			b := open(t, hosts)
			if got := hosts.waitForStatus(t, "a", dstack.HostReady).Found.DockerAccess; got != c.want {
				t.Errorf("access %q, want %q", got, c.want)
			}
			eng, err := b.Engine(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := eng.ListReports(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Each bad host fails with one clear line and a hint, and does not keep the good one from
// being used.
func TestBackend_BadHosts(t *testing.T) {
	const silentHosts = maxChecks + 8
	_, login := newFakeHost(t)
	hosts := &memoryHosts{}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	otherKey, _ := newKey(t)
	cases := map[dstack.InstanceID]struct {
		change  func(h *dstack.Host)
		step    dstack.HostStep
		message string
		hint    string
	}{
		"unreachable":  {func(h *dstack.Host) { h.Login.Address = closed.Addr().String() }, dstack.HostStepConnect, closed.Addr().String(), ""},
		"wrong key":    {func(h *dstack.Host) { h.Login.PrivateKey = otherKey }, dstack.HostStepLogin, "refuses the key", "authorized_keys"},
		"wrong user":   {func(h *dstack.Host) { h.Login.User = "bob" }, dstack.HostStepLogin, "bob", ""},
		"changed key":  {func(h *dstack.Host) { h.Login.HostKey = pinnedElsewhere(t) }, dstack.HostStepHostKey, "SHA256:", ""},
		"no key":       {func(h *dstack.Host) { h.Login.PrivateKey = "" }, dstack.HostStepLogin, "key", ""},
		"old engine":   {nil, dstack.HostStepDocker, "its API is 1.39", "19.03"},
		"no rights":    {nil, dstack.HostStepDocker, "ann may not use Docker, and may not use sudo without a password", "usermod -aG docker ann"},
		"stopped":      {nil, dstack.HostStepDocker, "its engine does not run", "systemctl"},
		"no shell":     {nil, dstack.HostStepShell, "does not run commands", "shell"},
		"odd hardware": {nil, dstack.HostStepHardware, "its hardware is not known", "Linux"},
		"too small": {func(h *dstack.Host) {
			h.Resources = spec.Resources{CPU: spec.Range[int]{Min: new(4096)}}
			h.Resources.Explicit.CPU = true
		}, dstack.HostStepResources, "needs cpu: 4096..; has ", "remove the host from the fleet"},
	}
	prepare := map[dstack.InstanceID]func(h *fakeHost){
		"old engine": func(h *fakeHost) { h.setEngine("old", "1.39") },
		"no rights": func(h *fakeHost) {
			h.refuses.Store(true)
			h.stub("docker", `echo "permission denied while trying to connect to the Docker daemon socket" >&2; exit 1`)
		},
		"stopped":      func(h *fakeHost) { h.stopEngine() },
		"no shell":     func(h *fakeHost) { h.stub("sh", `echo "This account is currently not available."; exit 1`) },
		"odd hardware": func(h *fakeHost) { h.stub("nproc", "exit 1"); h.stub("grep", "exit 1") },
		"too small":    func(*fakeHost) {},
	}
	for i := range silentHosts {
		id := dstack.InstanceID(fmt.Sprintf("silent %d", i))
		hosts.add(id, dstack.SSHLogin{Address: silent.Addr().String(), User: "ann", PrivateKey: login.PrivateKey})
	}
	hosts.add("good", login)
	for id, c := range cases {
		own := login
		if prepare[id] != nil {
			var h *fakeHost
			h, own = newFakeHost(t)
			prepare[id](h)
		}
		hosts.add(id, own)
		if c.change != nil {
			hosts.change(id, c.change)
		}
	}
	b := open(t, hosts)
	hosts.waitForStatus(t, "good", dstack.HostReady)
	for id, c := range cases {
		t.Run(string(id), func(t *testing.T) {
			check := hosts.waitForStatus(t, id, dstack.HostFailed)
			if check.Step != c.step || !strings.Contains(check.Message, c.message) || !strings.Contains(check.Hint, c.hint) {
				t.Errorf("step %q, message %q, hint %q", check.Step, check.Message, check.Hint)
			}
			if strings.Contains(check.Message, "\n") || check.Message == "" {
				t.Errorf("message %q", check.Message)
			}
			if isRefused := c.step == dstack.HostStepLogin || c.step == dstack.HostStepHostKey; isRefused && check.NextAt.Sub(check.CheckedAt) < 30*time.Second {
				t.Errorf("the next login after %v", check.NextAt.Sub(check.CheckedAt))
			}
			t.Logf("%s: %s\n%s", check.Step, check.Message, check.Hint)
		})
	}
	if got := offered(t, b); !slices.Equal(got, []string{"good"}) {
		t.Errorf("offered %v", got)
	}
	unusable, err := b.ListUnusable(t.Context(), "p")
	if err != nil || len(unusable) != len(cases)+silentHosts {
		t.Errorf("unusable %+v, %v", unusable, err)
	}
	if machines, _ := b.Machines(t.Context()); len(machines) != len(cases)+silentHosts+1 {
		t.Errorf("machines %+v", machines)
	}
	if _, err := b.Engine(t.Context(), "wrong key"); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("the engine of a host that failed: %v", err)
	}
}

func pinnedElsewhere(t *testing.T) string {
	_, public := newKey(t)
	return strings.TrimSpace(public)
}

// A right given on the host counts without a restart of anything: the next check logs in
// again, because groups belong to a login.
func TestBackend_AMendedHostBecomesReady(t *testing.T) {
	t.Parallel()
	h, login := newFakeHost(t)
	h.refuses.Store(true)
	h.stub("docker", `echo "permission denied" >&2; exit 1`)
	hosts := &memoryHosts{}
	hosts.add("a", login)
	open(t, hosts)
	hosts.waitForStatus(t, "a", dstack.HostFailed)
	h.refuses.Store(false)
	before := h.logins.Load()
	hosts.waitForStatus(t, "a", dstack.HostReady)
	if h.logins.Load() == before {
		t.Error("the same login is used")
	}
}

// After a refused key, applying the fleet again is tried at once: with the right key, and with
// the same one, which the host accepts now. The pause would be 30 seconds.
func TestBackend_AnAppliedHostIsCheckedAtOnce(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"another key", "the same key"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, login := newFakeHost(t)
			right := login.PrivateKey
			var public string
			login.PrivateKey, public = newKey(t)
			login.HostKey = string(cryptossh.MarshalAuthorizedKey(host.hostKey.PublicKey()))
			hosts := &memoryHosts{}
			hosts.add("a", login)
			open(t, hosts)
			hosts.waitForStatus(t, "a", dstack.HostFailed)
			hosts.change("a", func(h *dstack.Host) {
				h.AppliedAt, h.Check.NextAt = time.Now(), time.Time{}
				if name == "another key" {
					h.Login.PrivateKey = right
				} else {
					host.allowed.Store(&public)
				}
			})
			began := time.Now()
			hosts.waitForStatus(t, "a", dstack.HostReady)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("ready after %v", took)
			}
		})
	}
}

// A host that answers again is ready at the first check after it was applied, also during the pause after the last try.
func TestBackend_AnAppliedHostIsTriedAfterThePause(t *testing.T) {
	t.Parallel()
	h, login := newFakeHost(t)
	hosts := &memoryHosts{}
	hosts.add("a", login)
	h.stop()
	open(t, hosts)
	hosts.waitForStatus(t, "a", dstack.HostFailed)
	h.start()
	applied := time.Now()
	hosts.change("a", func(h *dstack.Host) { h.AppliedAt, h.Check.NextAt = applied, time.Time{} })
	var first dstack.HostCheck
	eventually(t, "checked after it was applied", func() bool {
		first = hosts.get("a").Check
		return first.AppliedAt.Equal(applied)
	})
	if first.Status != dstack.HostReady {
		t.Errorf("the first check found %s: %s", first.Status, first.Message)
	}
}

func TestBackend_AHostGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	h, login := newFakeHost(t)
	hosts := &memoryHosts{}
	hosts.add("a", login)
	b := open(t, hosts)
	hosts.waitForStatus(t, "a", dstack.HostReady)
	eng, err := b.Engine(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	h.stop()
	c := hosts.waitForStatus(t, "a", dstack.HostUnreachable)
	if c.Found.Hardware.CPUs == 0 || c.Message == "" {
		t.Errorf("check %+v", c)
	}
	machines, err := b.Machines(t.Context())
	if m := machines["a"]; err != nil || !m.IsAlive() || m.SilentSince.IsZero() {
		t.Errorf("machines %+v, %v", machines, err)
	}
	if got := offered(t, b); len(got) > 0 {
		t.Errorf("offered %v", got)
	}
	if _, err := eng.ListReports(t.Context()); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("reports of a host that is away: %v", err)
	}
	h.start()
	hosts.waitForStatus(t, "a", dstack.HostReady)
	eventually(t, "answering", func() bool {
		machines, _ := b.Machines(t.Context())
		_, err := eng.ListReports(t.Context())
		return err == nil && machines["a"].SilentSince.IsZero()
	})
	h.stopEngine()
	if _, err := eng.ListReports(t.Context()); err == nil {
		t.Error("reports without an engine")
	}
	if c := hosts.waitForStatus(t, "a", dstack.HostUnreachable); c.Step != dstack.HostStepDocker {
		t.Errorf("after Docker stopped: %+v", c)
	}
	h.startEngine()
	hosts.waitForStatus(t, "a", dstack.HostReady)
}

// Docker that stops on a host without replicas is noticed long before the next check, so that
// nothing is placed there.
func TestBackend_DockerStopsOnAnIdleHost(t *testing.T) {
	t.Parallel()
	h, login := newFakeHost(t)
	hosts := &memoryHosts{}
	hosts.add("a", login)
	b := open(t, hosts)
	hosts.waitForStatus(t, "a", dstack.HostReady)
	h.stopEngine()
	began := time.Now()
	if c := hosts.waitForStatus(t, "a", dstack.HostUnreachable); c.Step != dstack.HostStepDocker || time.Since(began) > 15*time.Second {
		t.Errorf("after %v: %+v", time.Since(began), c)
	}
	if got := offered(t, b); len(got) > 0 {
		t.Errorf("offered %v", got)
	}
	h.startEngine()
	hosts.waitForStatus(t, "a", dstack.HostReady)
}

// Uploads and logs have a connection of their own, so that replicas' streams do not wait for them.
func TestBackend_BulkDataIsApart(t *testing.T) {
	t.Parallel()
	for _, refuses := range []bool{false, true} { // forwarded sockets
		h, login := newFakeHost(t)
		h.refuses.Store(refuses)
		hosts := &memoryHosts{}
		hosts.add("a", login)
		b := open(t, hosts)
		hosts.waitForStatus(t, "a", dstack.HostReady)
		l := b.findLink("a")
		for want, dial := range []func(context.Context) (net.Conn, error){1: l.dialDocker, 2: l.dialStreams} {
			if dial == nil {
				continue
			}
			conn, err := dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := int(h.logins.Load()); got != want {
				t.Errorf("%d logins, want %d", got, want)
			}
		}
	}
}

// Two entries that are the same machine would stop each other's replicas.
func TestBackend_TwoEntriesAreTheSameMachine(t *testing.T) {
	t.Parallel()
	_, login := newFakeHost(t)
	hosts := &memoryHosts{}
	hosts.add("a", login)
	hosts.add("b", login)
	b := open(t, hosts)
	eventually(t, "decided", func() bool {
		return hosts.get("a").Check.Status != dstack.HostPending && hosts.get("b").Check.Status != dstack.HostPending
	})
	ids := offered(t, b)
	if len(ids) != 1 {
		t.Fatalf("offered %v", ids)
	}
	first := dstack.InstanceID(ids[0])
	second := map[dstack.InstanceID]dstack.InstanceID{"a": "b", "b": "a"}[first]
	c := hosts.get(second).Check
	if want := fmt.Sprintf("it is the same machine as the host %s of the fleet rack", first); c.Message != want || c.Step != dstack.HostStepIdentity {
		t.Errorf("check %+v", c)
	}
	if _, err := b.Engine(t.Context(), second); dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "same machine") {
		t.Errorf("its engine: %v", err)
	}
	hosts.remove(first)
	began := time.Now()
	hosts.waitForStatus(t, second, dstack.HostReady)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("ready %v after the other was removed", took)
	}
	if _, err := b.Engine(t.Context(), first); dstack.KindOf(err) != dstack.NotFound {
		t.Errorf("the engine of a host that was removed: %v", err)
	}
	if _, err := b.Dialer.Dial(t.Context(), dstack.Endpoint{Host: string(first), Address: "127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "no connection to the host") {
		t.Errorf("a connection to a host that was removed: %v", err)
	}
}

// The local backend and a host with the same Docker Engine would stop each other's replicas.
func TestBackend_AHostIsTheServersOwnMachine(t *testing.T) {
	t.Parallel()
	own, ownLogin := newFakeHost(t)
	_, login := newFakeHost(t)
	hosts := &memoryHosts{}
	hosts.add("own", ownLogin)
	hosts.add("other", login)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, hosts, func(o *Options) {
		o.OwnMachines = func() []dstack.ServerMachine {
			return []dstack.ServerMachine{{}, {Engines: []string{*own.engineID.Load()}, BootID: strings.TrimSpace(string(boot))}}
		}
	})
	if c := hosts.waitForStatus(t, "own", dstack.HostFailed); c.Step != dstack.HostStepIdentity || !strings.Contains(c.Message, "the server's own machine") {
		t.Errorf("check %+v", c)
	}
	if _, err := b.Engine(t.Context(), "own"); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("its engine: %v", err)
	}
	hosts.waitForStatus(t, "other", dstack.HostReady)
}

// A host that failed is checked again although the clock was set back by an hour after its check.
func TestBackend_TheClockIsSetBack(t *testing.T) {
	t.Parallel()
	now := time.Now()
	later := now.Add(time.Hour)
	l := &link{b: &Backend{}, host: dstack.Host{Check: dstack.HostCheck{Status: dstack.HostFailed, CheckedAt: later, NextAt: later.Add(time.Minute)}}}
	l.client = (&Backend{}).newClient(l.host, nil)
	if !l.beginCheck(now) {
		t.Error("it waits for an hour")
	}
	other := now.Add(5 * time.Minute) // by the clock of another server
	l.isChecking, l.begunAt, l.host.Check = false, time.Time{}, dstack.HostCheck{Status: dstack.HostFailed, CheckedAt: other, NextAt: other.Add(time.Minute)}
	if l.beginCheck(now) {
		t.Error("it is checked again and again beside another server")
	}
}

func TestBackend_HostsBehindAJumpHostShareItsConnection(t *testing.T) {
	t.Parallel()
	jump, jumpLogin := newFakeHost(t)
	hosts := &memoryHosts{}
	for _, id := range []dstack.InstanceID{"a", "b", "c"} {
		_, login := newFakeHost(t)
		hosts.add(id, login)
		hosts.change(id, func(h *dstack.Host) { h.Jump = new(jumpLogin) })
	}
	b := open(t, hosts)
	for _, id := range []dstack.InstanceID{"a", "b", "c"} {
		hosts.waitForStatus(t, id, dstack.HostReady)
	}
	eventually(t, "pinned", func() bool {
		return !slices.ContainsFunc([]dstack.InstanceID{"a", "b", "c"}, func(id dstack.InstanceID) bool { return hosts.get(id).Jump.HostKey == "" })
	})
	if got := jump.logins.Load(); got != 1 {
		t.Errorf("%d logins at the jump host", got)
	}
	for _, id := range []dstack.InstanceID{"a", "b", "c"} {
		hosts.remove(id)
	}
	eventually(t, "closed", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.jumps) == 0
	})
}

// The first server that sees a key pins it for all.
func TestBackend_AnotherServerPinnedAnotherKey(t *testing.T) {
	t.Parallel()
	_, login := newFakeHost(t)
	hosts := &racingHosts{}
	hosts.add("a", login)
	open(t, hosts)
	c := hosts.waitForStatus(t, "a", dstack.HostFailed)
	if !strings.Contains(c.Message, "another server") {
		t.Errorf("check %+v", c)
	}
}

// A login shell that prints is no obstacle, but the user is told.
func TestBackend_ALoginShellPrints(t *testing.T) {
	t.Parallel()
	h, login := newFakeHost(t)
	h.refuses.Store(true) // Docker's answers come through the shell
	h.greets.Store(true)
	hosts := &memoryHosts{}
	hosts.add("a", login)
	open(t, hosts)
	f := hosts.waitForStatus(t, "a", dstack.HostReady).Found
	if f.DockerAccess != dstack.DockerStdio || len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], `prints "Welcome to this host!"`) {
		t.Errorf("found %+v", f)
	}
}

// Servers that share a database have a connection each, and one pinned key.
func TestBackend_TwoServersShareTheHosts(t *testing.T) {
	t.Parallel()
	h, login := newFakeHost(t)
	hosts := &memoryHosts{}
	hosts.add("a", login)
	for _, b := range []*Backend{open(t, hosts), open(t, hosts)} {
		eventually(t, "usable", func() bool {
			_, err := b.Engine(t.Context(), "a")
			return err == nil
		})
		if got := offered(t, b); !slices.Equal(got, []string{"a"}) {
			t.Errorf("offered %v", got)
		}
	}
	if got := h.logins.Load(); got != 2 {
		t.Errorf("%d logins", got)
	}
}

// A server that has just started waits for the first check of a host that was ready.
func TestBackend_AfterARestartTheEngineIsThere(t *testing.T) {
	t.Parallel()
	_, login := newFakeHost(t)
	hosts := &memoryHosts{}
	hosts.add("a", login)
	hosts.change("a", func(h *dstack.Host) {
		h.Check = dstack.HostCheck{Status: dstack.HostReady, NextAt: time.Now().Add(time.Hour)}
	})
	b := open(t, hosts)
	if err := b.ReadHosts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Engine(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}
