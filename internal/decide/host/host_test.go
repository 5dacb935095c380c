package host_test

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/host"
	"dstack/internal/dstack"
)

var (
	now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ok  = host.Result{Found: dstack.HostFacts{DockerVersion: "28.2.2", DockerAPI: "1.50", EngineID: "E", Hardware: dstack.Hardware{CPUs: 8, MemoryMiB: 32 << 10}}}
)

func failure(step dstack.HostStep, kind dstack.Kind) host.Result {
	return host.Result{Failure: &host.Failure{Step: step, Kind: kind, Message: "m", Hint: "h"}}
}

func TestDecide_Status(t *testing.T) {
	const (
		pending, ready, failed, gone = dstack.HostPending, dstack.HostReady, dstack.HostFailed, dstack.HostUnreachable
		connect, docker, hardware    = dstack.HostStepConnect, dstack.HostStepDocker, dstack.HostStepHardware
	)
	for _, c := range []struct {
		name   string
		before dstack.HostStatus
		result host.Result
		want   dstack.HostStatus
	}{
		{"the first check succeeds", pending, ok, ready},
		{"a mended host", failed, ok, ready},
		{"a host that came back", gone, ok, ready},
		{"a new host that does not answer", pending, failure(connect, dstack.Unavailable), failed},
		{"a ready host that does not answer", ready, failure(connect, dstack.Unavailable), gone},
		{"it still does not", gone, failure(connect, dstack.Unavailable), gone},
		{"a ready host whose Docker stopped", ready, failure(docker, dstack.Unavailable), gone},
		{"a host that boots", gone, failure(docker, dstack.Unavailable), gone},
		{"a ready host whose Docker was removed", ready, failure(docker, dstack.Unsupported), failed},
		{"a ready host with another key", ready, failure(dstack.HostStepHostKey, dstack.Forbidden), failed},
		{"a key that was removed", ready, failure(dstack.HostStepLogin, dstack.Unauthorized), failed},
		{"a ready host whose tools hang", ready, failure(hardware, dstack.Unavailable), ready},
		{"a new host whose tools hang", pending, failure(hardware, dstack.Unavailable), failed},
		{"a ready host that turns out to be another one", ready, failure(dstack.HostStepIdentity, dstack.Conflict), failed},
	} {
		before := dstack.HostCheck{Status: c.before, Since: now.Add(-time.Hour)}
		got := host.Decide(dstack.Host{AppliedAt: now.Add(-time.Minute), Check: before}, c.result, now)
		if got.Status != c.want {
			t.Errorf("%s: %s, want %s", c.name, got.Status, c.want)
		}
		if wantSince := map[bool]time.Time{true: before.Since, false: now}[got.Status == c.before]; got.Since != wantSince {
			t.Errorf("%s: since %v, want %v", c.name, got.Since, wantSince)
		}
		if hasMessage := got.Message == "m" && got.Hint == "h"; hasMessage == (got.Status == ready) {
			t.Errorf("%s: message %q", c.name, got.Message)
		}
		if got.CheckedAt != now || got.AppliedAt != now.Add(-time.Minute) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestDecide_HardwareOfAReadyHostMayFailTwice(t *testing.T) {
	h := dstack.Host{Check: host.Decide(dstack.Host{}, ok, now)}
	var statuses []string
	for range 3 {
		h.Check = host.Decide(h, failure(dstack.HostStepHardware, dstack.Unavailable), now)
		statuses = append(statuses, string(h.Check.Status))
		if h.Check.Found.Hardware.CPUs != 8 || h.Check.Found.DockerVersion != "28.2.2" {
			t.Errorf("what was known is forgotten: %+v", h.Check.Found)
		}
	}
	if got := strings.Join(statuses, " "); got != "ready ready failed" {
		t.Error(got)
	}
}

func TestDecide_NextCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		result host.Result
		want   string // the delays of checks in a row, in seconds
	}{
		{"ready", ok, "60 60 60"},
		{"a refused key", failure(dstack.HostStepLogin, dstack.Unauthorized), "30 60 120 240 480 600 600"},
		{"another host key", failure(dstack.HostStepHostKey, dstack.Forbidden), "30 60 120 240 480 600 600"},
		{"no answer", failure(dstack.HostStepConnect, dstack.Unavailable), "1 2 4 8 16 30 30"},
		{"Docker does not answer", failure(dstack.HostStepDocker, dstack.Unavailable), "1 2 4 8 16 30 30"},
		{"no Docker", failure(dstack.HostStepDocker, dstack.Unsupported), "5 10 20 40 60 60"},
	} {
		h, got := dstack.Host{}, []string{}
		for range strings.Fields(c.want) {
			h.Check = host.Decide(h, c.result, now)
			got = append(got, strings.TrimSuffix(h.Check.NextAt.Sub(now).Round(time.Second).String(), "s"))
		}
		for i, want := range strings.Fields(c.want) {
			d, _ := time.ParseDuration(want + "s")
			if got[i] != strings.TrimSuffix(d.String(), "s") {
				t.Errorf("%s: check %d after %s, want %s", c.name, i+1, got[i], d)
			}
		}
	}
	h := dstack.Host{Check: host.Decide(dstack.Host{Check: dstack.HostCheck{Step: dstack.HostStepLogin, Failures: 5}}, failure(dstack.HostStepDocker, dstack.Unsupported), now)}
	if h.Check.Failures != 1 {
		t.Errorf("another step begins with failure %d", h.Check.Failures)
	}
}

func TestFindSameMachine(t *testing.T) {
	found := dstack.HostFacts{EngineID: "E", MachineID: "M"}
	h := dstack.Host{ID: "2", Name: "b", FleetName: "f", Project: "p", CreatedAt: now}
	for _, c := range []struct {
		name   string
		change func(h, other *dstack.Host)
		want   string
	}{
		{"the other is in use", func(_, other *dstack.Host) {}, "it is the same machine as the host a of the fleet f"},
		{"the other does not answer now", func(_, other *dstack.Host) { other.Check.Status = dstack.HostUnreachable }, "it is the same machine"},
		{"the other was never ready", func(_, other *dstack.Host) { other.Check.Status = dstack.HostPending }, ""},
		{"the other failed", func(_, other *dstack.Host) { other.Check.Status = dstack.HostFailed }, ""},
		{"the other is in use and later, this one is not yet", func(_, other *dstack.Host) { other.CreatedAt = now.Add(time.Hour) }, "it is the same"},
		{"both are in use, this one is later", func(h, _ *dstack.Host) { h.Check.Status = dstack.HostReady }, "it is the same"},
		{"both are in use, this one is earlier", func(h, other *dstack.Host) {
			h.Check.Status, other.CreatedAt = dstack.HostReady, now.Add(time.Hour)
		}, ""},
		{"another engine on it", func(_, other *dstack.Host) { other.Check.Found.EngineID = "other" }, ""},
		{"a copy of its disk", func(_, other *dstack.Host) { other.Check.Found.MachineID = "other" }, ""},
		{"of another project", func(_, other *dstack.Host) { other.Project = "q" }, "it is the same machine as a host of another project"},
		{"itself", func(_, other *dstack.Host) { other.ID = "2" }, ""},
	} {
		a, other := h, dstack.Host{ID: "1", Name: "a", FleetName: "f", Project: "p", CreatedAt: now, Check: dstack.HostCheck{Status: dstack.HostReady, Found: found}}
		c.change(&a, &other)
		got := host.FindSameMachine(a, found, []dstack.Host{a, other})
		switch {
		case (got == nil) != (c.want == ""):
			t.Errorf("%s: %+v", c.name, got)
		case got != nil && (!strings.HasPrefix(got.Message, c.want) || got.Hint == "" || got.Step != dstack.HostStepIdentity):
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := host.FindSameMachine(h, dstack.HostFacts{}, []dstack.Host{{ID: "1", Check: dstack.HostCheck{Status: dstack.HostReady}}}); got != nil {
		t.Errorf("unknown engines are the same: %+v", got)
	}
}

// The texts are those of Docker 20.10 and 28, sudo 1.9 and OpenSSH.
func TestExplainDocker(t *testing.T) {
	const denied = "failed to open the raw stream connection: dial unix /var/run/docker.sock: connect: permission denied"
	for _, c := range []struct {
		name     string
		attempts host.DockerAttempts
		kind     dstack.Kind
		message  string
		hint     string
	}{
		{"nothing there", host.DockerAttempts{}, dstack.Unsupported, "Docker is not installed, or not in the PATH of ann", "install Docker"},
		{"no permission", host.DockerAttempts{HasCommand: true, HasSocket: true, Socket: "connect failed", Stdio: denied, Sudo: "sudo: a password is required"},
			dstack.Forbidden, "ann may not use Docker, and may not use sudo without a password", "sudo usermod -aG docker ann"},
		{"sudo with requiretty", host.DockerAttempts{HasCommand: true, HasSocket: true, Socket: "connect failed", Stdio: denied, Sudo: "sudo: sorry, you must have a tty to run sudo"},
			dstack.Forbidden, "sudo asks for a terminal", "sudo usermod -aG docker ann"},
		{"no permission, no command", host.DockerAttempts{HasSocket: true, Socket: "permission denied"}, dstack.Forbidden, "ann may not use Docker", "usermod"},
		{"stopped", host.DockerAttempts{HasCommand: true, Stdio: "failed to open the raw stream connection: dial unix /var/run/docker.sock: connect: no such file or directory"},
			dstack.Unavailable, "its engine does not run", "systemctl enable --now docker"},
		{"stopped, the socket is left", host.DockerAttempts{HasCommand: true, HasSocket: true, Socket: "connect failed", Stdio: "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"},
			dstack.Unavailable, "its engine does not run", "systemctl"},
		{"an old command", host.DockerAttempts{HasCommand: true, HasSocket: true, Socket: "connect failed", Stdio: "docker: 'dial-stdio' is not a docker command."},
			dstack.Unsupported, "older than 19.03", "AllowTcpForwarding yes"},
		{"another answer", host.DockerAttempts{HasCommand: true, HasSocket: true, Stdio: "a\nunable to resolve docker endpoint: context \"x\": not found\n"},
			dstack.Unavailable, `Docker does not answer: unable to resolve docker endpoint: context "x": not found`, "`docker version`"},
	} {
		c.attempts.User = "ann"
		got := host.ExplainDocker(c.attempts)
		if got.Kind != c.kind || !strings.Contains(got.Message, c.message) || !strings.Contains(got.Hint, c.hint) || got.Step != dstack.HostStepDocker {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestDescribeChange(t *testing.T) {
	ready := host.Decide(dstack.Host{}, ok, now)
	gpu := ready
	gpu.Found.Hardware.GPUs = []dstack.GPU{{Name: "L4", MemoryMiB: 23034}, {Name: "L4", MemoryMiB: 23034}, {Name: "T4", MemoryMiB: 15360}}
	lost := gpu
	lost.Found.Hardware.GPUs = gpu.Found.Hardware.GPUs[:1]
	lost.Found.Hardware.DiskMiB = 5
	failed := host.Decide(dstack.Host{}, failure(dstack.HostStepLogin, dstack.Unauthorized), now)
	gone := host.Decide(dstack.Host{Check: ready}, failure(dstack.HostStepConnect, dstack.Unavailable), now)
	for _, c := range []struct {
		before, after dstack.HostCheck
		want          string
	}{
		{dstack.HostCheck{}, ready, "ready: Docker 28.2.2, 8 cpu, 32GB, no GPU"},
		{ready, ready, ""},
		{gpu, lost, "its hardware changed from 8 cpu, 32GB, 2×L4 22GB, 1×T4 15GB to 8 cpu, 32GB, 1×L4 22GB"},
		{dstack.HostCheck{}, failed, "failed (login): m"},
		{failed, failed, ""},
		{ready, gone, "does not answer: m"},
	} {
		if got := host.DescribeChange(c.before, c.after); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if got := host.ExplainUnusable(dstack.Host{Check: gone}); got != "it does not answer: m" {
		t.Error(got)
	}
	failed.Message = "m."
	if got := host.ExplainUnusable(dstack.Host{Check: failed}); got != "its check failed (login): m" {
		t.Error(got)
	}
}

func TestFindOwnMachine(t *testing.T) {
	found := dstack.HostFacts{EngineID: "E", MachineID: "m/boot"}
	for name, c := range map[string]struct {
		found   dstack.HostFacts
		engines []string
		boot    string
		isOwn   bool
	}{
		"the same":                  {found, []string{"X", "E"}, "boot", true},
		"a server in a container":   {dstack.HostFacts{EngineID: "E", MachineID: "other/boot"}, []string{"E"}, "boot", true},
		"a copy of its disk":        {found, []string{"E"}, "another", false},
		"another engine of it":      {found, []string{"X"}, "boot", false},
		"no engine":                 {found, nil, "boot", false},
		"the server's boot unknown": {dstack.HostFacts{EngineID: "E", MachineID: "m/"}, []string{"E"}, "", false},
		"the host's boot unknown":   {dstack.HostFacts{EngineID: "E"}, []string{"E"}, "boot", false},
	} {
		f := host.FindOwnMachine(c.found, []dstack.ServerMachine{{Engines: []string{"other"}, BootID: "b"}, {Engines: c.engines, BootID: c.boot}})
		if (f != nil) != c.isOwn {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// A host may say anything about itself, in any length.
func TestDecide_Hostile(t *testing.T) {
	long := "\x1b]0;evil\a\u202e\n" + strings.Repeat("é", 100_000)
	for _, f := range []*host.Failure{nil, {Step: dstack.HostStepShell, Kind: dstack.Unsupported, Message: long, Hint: long}} {
		got := host.Decide(dstack.Host{}, host.Result{Failure: f, Found: dstack.HostFacts{DockerVersion: long, DockerAPI: long, EngineID: long, MachineID: long,
			System: long, DriverVersion: long, Warnings: []string{long}, Hardware: dstack.Hardware{CPUs: 1}}}, now)
		all := got.Message + got.Hint + got.Found.DockerVersion + got.Found.DockerAPI + got.Found.EngineID + got.Found.MachineID + got.Found.System +
			got.Found.DriverVersion + strings.Join(got.Found.Warnings, "")
		if len(all) > 5000 || len(all) < 1000 || strings.ContainsAny(all, "\x1b\a\n\u202e") {
			t.Errorf("%d bytes: %.100q", len(all), all)
		}
	}
}
