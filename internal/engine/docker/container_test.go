package docker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dstack"
)

func TestPlan_IsConfined(t *testing.T) {
	e := &Engine{opts: Options{Installation: "here"}, usesContainerIP: true}
	o := dstack.AttemptSpec{
		Attempt: "0123456789ab", AttemptNum: 2, Replica: "r", ReplicaNum: 1, Run: "llama", Project: "main",
		Port: 8000, WorkingDir: "app", Env: map[string]string{"A": "b"}, GPUs: []dstack.GPU{{ID: "GPU-a"}},
		CPUs: 3, MemoryMiB: 512, ShmBytes: 1 << 20,
	}
	plan, err := e.newContainerOptions(o, "x:1", true)
	if err != nil {
		t.Fatal(err)
	}
	c, h := plan.Config, plan.HostConfig
	if plan.Name != "dstack-llama-1-2-01234567" || c.Labels[labelAttempt] != "0123456789ab" || c.Labels[labelInstallation] != "here" {
		t.Errorf("name %s, labels %v", plan.Name, c.Labels)
	}
	if h.Privileged || len(h.CapAdd) != 0 || h.NetworkMode != "" || len(h.Binds) != 0 || len(h.PortBindings) != 0 ||
		!slices.Contains(h.SecurityOpt, "no-new-privileges") || h.PidsLimit == nil || *h.PidsLimit != 32<<10 {
		t.Errorf("%+v", h)
	}
	if h.NanoCPUs != 3e9 || h.Memory != 512<<20 || h.ShmSize != 1<<20 || h.LogConfig.Config["max-size"] == "" {
		t.Errorf("limits: %+v", h)
	}
	if len(h.DeviceRequests) != 1 || !slices.Equal(h.DeviceRequests[0].DeviceIDs, []string{"GPU-a"}) {
		t.Errorf("GPUs: %+v", h.DeviceRequests)
	}
	if c.WorkingDir != "/workflow/app" || !slices.Equal(c.Env, []string{"A=b", "HOME=/root", "TINI_KILL_PROCESS_GROUP=1"}) {
		t.Errorf("%s %q", c.WorkingDir, c.Env)
	}
	e.usesContainerIP, o.GPUs, o.WorkingDir, o.Env = false, nil, "", map[string]string{"HOME": "/home/x"}
	o.MemoryMiB, o.CPUs = 0, 0
	if plan, err = e.newContainerOptions(o, "x:1", false); err != nil {
		t.Fatal(err)
	}
	for port, bindings := range plan.HostConfig.PortBindings {
		if port.Num() != 8000 || len(bindings) != 1 || bindings[0].HostIP.String() != "127.0.0.1" || bindings[0].HostPort != "" {
			t.Errorf("%v: %v", port, bindings)
		}
	}
	if want := []string{"HOME=/home/x", "NVIDIA_VISIBLE_DEVICES=void"}; !slices.Equal(plan.Config.Env, want) {
		t.Errorf("%q", plan.Config.Env)
	}
	if plan.Config.WorkingDir != "" || plan.HostConfig.Memory != 0 || plan.HostConfig.NanoCPUs != 0 {
		t.Errorf("%+v", plan.Config)
	}
}

func TestEntrypoint(t *testing.T) {
	for _, argv := range [][]string{nil, {"python", "app.py"}, {"/bin/zsh", "-i", "-c", "x"}, {"/bin/sh", "-c", "x"}} {
		if got := buildEntrypoint(argv); !slices.Equal(got, argv) {
			t.Errorf("%q became %q", argv, got)
		}
	}
	if got := buildEntrypoint([]string{"/bin/sh", "-i", "-c", "x"}); slices.Contains(got, "-i") || !strings.HasSuffix(got[2], "\nx") {
		t.Errorf("%q", got)
	}
	if got := buildEntrypoint([]string{"/bin/bash", "-i", "-c", "x"}); !strings.Contains(got[2], "-i -c") || !strings.HasSuffix(got[4], "\nx") {
		t.Errorf("%q", got)
	}
}

// frames writes what an engine sends: e:text is on stderr.
func frames(at time.Time, step time.Duration, texts ...string) *bytes.Buffer {
	var out bytes.Buffer
	for _, text := range texts {
		kind := byte(1)
		if rest, ok := strings.CutPrefix(text, "e:"); ok {
			kind, text = 2, rest
		}
		body := at.Format(time.RFC3339Nano) + " " + text
		head := []byte{kind, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(head[4:], uint32(len(body)))
		out.Write(head)
		out.WriteString(body)
		at = at.Add(step)
	}
	return &out
}

func TestDemux(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)
	long := strings.Repeat("x", 16<<10)
	read := func(since time.Time, step time.Duration) (lines []dstack.LogLine) {
		in := frames(at, step, "one\n", "e:oops\r\n", long, "e:between\n", long+"end\n", "\n", long, long, "next\n", "no end")
		if err := demuxLogs(in, since, func(l dstack.LogLine) bool { lines = append(lines, l); return true }); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	all := read(time.Time{}, 100*time.Nanosecond) // several in one microsecond
	want := []string{"stdout one", "stderr oops", "stderr between", "stdout " + long + long + "end", "stdout ", "stdout " + long + long, "stdout next", "stdout no end"}
	if len(all) != len(want) {
		t.Fatalf("%d lines, want %d", len(all), len(want))
	}
	for i, l := range all {
		if got := l.Stream + " " + string(l.Text); got != want[i] {
			t.Errorf("line %d is %.40q, want %.40q", i, got, want[i])
		}
		if i > 0 && !l.At.After(all[i-1].At) {
			t.Errorf("line %d is at %v, the one before at %v", i, l.At, all[i-1].At)
		}
	}
	for i := range all {
		rest := read(all[i].At, 100*time.Nanosecond)
		if len(rest) != len(all)-1-i || len(rest) > 0 && !rest[0].At.Equal(all[i+1].At) {
			t.Errorf("after line %d come %d", i, len(rest))
		}
	}
}

func TestDemux_Broken(t *testing.T) {
	yes := func(dstack.LogLine) bool { return true }
	whole := frames(time.Now(), 0, "one\n").Bytes()
	for name, in := range map[string][]byte{
		"cut in a head": whole[:5], "cut in a body": whole[:20],
		"too large": {1, 0, 0, 0, 0xff, 0, 0, 0}, "no stream": {9, 0, 0, 0, 0, 0, 0, 1, 'x'}, "no time": {1, 0, 0, 0, 0, 0, 0, 2, 'x', '\n'},
	} {
		if err := demuxLogs(bytes.NewReader(in), time.Time{}, yes); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := demuxLogs(bytes.NewReader(whole), time.Time{}, func(dstack.LogLine) bool { return false }); err == nil {
		t.Error("it goes on though nobody listens")
	}
}

func TestUsualHost(t *testing.T) {
	env := map[string]string{"HOME": "/home/x", "XDG_RUNTIME_DIR": "/run/user/7"}
	for _, c := range []struct{ there, want string }{
		{"/var/run/docker.sock", ""},
		{"", ""},
		{"/run/user/7/docker.sock", "unix:///run/user/7/docker.sock"},
		{"/home/x/.docker/run/docker.sock", "unix:///home/x/.docker/run/docker.sock"},
	} {
		got := findSocket(func(name string) string { return env[name] }, func(path string) bool { return path == c.there })
		if got != c.want {
			t.Errorf("with %s it is %q, want %q", c.there, got, c.want)
		}
	}
	env["DOCKER_HOST"] = "unix:///mine"
	if got := findSocket(func(name string) string { return env[name] }, func(string) bool { return true }); got != "" {
		t.Errorf("DOCKER_HOST is overruled by %q", got)
	}
}

// The shells that the wire asks for, run here: without a terminal they say
// nothing of their own, bash reads its start-up file, and a SIGTERM to the
// group is waited for.
func TestEntrypoint_Run(t *testing.T) {
	const script = `echo "rc: $FROM_RC"; echo err >&2; (trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.02; done) & wait; echo after`
	for _, shell := range []string{"/bin/bash", "/bin/sh"} {
		t.Run(shell, func(t *testing.T) {
			if !pathExists(shell) {
				t.Skip("needs " + shell + ": this machine has none")
			}
			home := t.TempDir()
			if err := os.WriteFile(filepath.Join(home, ".bashrc"), []byte("FROM_RC=yes; echo noise; echo noise >&2\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			argv := buildEntrypoint([]string{shell, "-i", "-c", script})
			cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
			cmd.Env = []string{"HOME=" + home, "PATH=/bin:/usr/bin"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var lines []string
			for in := bufio.NewScanner(out); in.Scan(); {
				if lines = append(lines, in.Text()); in.Text() == "up" {
					if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
						t.Error(err)
					}
				}
			}
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 143 {
				t.Errorf("it ended with %v", err)
			}
			rc := map[string]string{"/bin/bash": "rc: yes", "/bin/sh": "rc: "}[shell]
			if want := []string{rc, "up", "asked"}; !slices.Equal(lines, want) {
				t.Errorf("stdout: %q, want %q", lines, want)
			}
			// An interactive shell numbers what runs in the background, and
			// any shell tells of a command (sleep) that a signal ended.
			if said := regexp.MustCompile(`(?m)^(\[\d+\] \d+|Terminated)\n`).ReplaceAllString(stderr.String(), ""); said != "err\n" {
				t.Errorf("stderr: %q", stderr.String())
			}
		})
	}
}
