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
	"dstack/internal/engine"
)

func TestNewContainerOptions_RestrictsContainer(t *testing.T) {
	e := &Engine{opts: Options{Installation: "here"}, usesContainerIP: true}
	spec := dstack.AttemptSpec{
		Attempt: "0123456789ab", AttemptNum: 2, Replica: "r", ReplicaNum: 1, Run: "llama", Project: "main",
		Port: 8000, WorkingDir: "app", Env: map[string]string{"A": "b"}, GPUs: []dstack.GPU{{ID: "GPU-a"}},
		CPUs: 3, MemoryMiB: 512, ShmBytes: 1 << 20,
	}
	options, err := e.newContainerOptions(spec, "x:1", true)
	if err != nil {
		t.Fatal(err)
	}
	c, h := options.Config, options.HostConfig
	if options.Name != "dstack-llama-1-2-01234567" || c.Labels[labelAttempt] != "0123456789ab" || c.Labels[labelInstallation] != "here" {
		t.Errorf("name %s, labels %v", options.Name, c.Labels)
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
	e.usesContainerIP, spec.GPUs, spec.WorkingDir, spec.Env = false, nil, "", map[string]string{"HOME": "/home/x"}
	spec.MemoryMiB, spec.CPUs = 0, 0
	if options, err = e.newContainerOptions(spec, "x:1", false); err != nil {
		t.Fatal(err)
	}
	for port, bindings := range options.HostConfig.PortBindings {
		if port.Num() != 8000 || len(bindings) != 1 || bindings[0].HostIP.String() != "127.0.0.1" || bindings[0].HostPort != "" {
			t.Errorf("%v: %v", port, bindings)
		}
	}
	if want := []string{"HOME=/home/x", "NVIDIA_VISIBLE_DEVICES=void"}; !slices.Equal(options.Config.Env, want) {
		t.Errorf("%q", options.Config.Env)
	}
	if options.Config.WorkingDir != "" || options.HostConfig.Memory != 0 || options.HostConfig.NanoCPUs != 0 {
		t.Errorf("%+v", options.Config)
	}
}

func TestBuildEntrypoint(t *testing.T) {
	for _, argv := range [][]string{nil, {"python", "app.py"}, {"/bin/zsh", "-i", "-c", "x"}, {"/bin/sh", "-c", "x"}} {
		if got := engine.BuildEntrypoint(argv); !slices.Equal(got, argv) {
			t.Errorf("%q became %q", argv, got)
		}
	}
	if got := engine.BuildEntrypoint([]string{"/bin/sh", "-i", "-c", "x"}); slices.Contains(got, "-i") || !strings.HasSuffix(got[2], "\nx") {
		t.Errorf("%q", got)
	}
	if got := engine.BuildEntrypoint([]string{"/bin/bash", "-i", "-c", "x"}); !strings.Contains(got[2], "-i -c") || !strings.HasSuffix(got[4], "\nx") {
		t.Errorf("%q", got)
	}
}

// buildLogStream returns a log stream as Docker sends it, with one frame per text and step
// between their times. A text that begins with "e:" is on stderr.
func buildLogStream(at time.Time, step time.Duration, texts ...string) *bytes.Buffer {
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

func TestDemuxLogs(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)
	long := strings.Repeat("x", 16<<10)
	read := func(since time.Time, step time.Duration) (lines []dstack.LogLine) {
		in := buildLogStream(at, step, "one\n", "e:oops\r\n", long, "e:between\n", long+"end\n", "\n", long, long, "next\n", "no end")
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
			t.Errorf("%d lines are later than line %d", len(rest), i)
		}
	}
}

func TestDemuxLogs_InvalidStream(t *testing.T) {
	accept := func(dstack.LogLine) bool { return true }
	whole := buildLogStream(time.Now(), 0, "one\n").Bytes()
	for name, in := range map[string][]byte{
		"cut in a head": whole[:5], "cut in a body": whole[:20],
		"too large": {1, 0, 0, 0, 0xff, 0, 0, 0}, "no stream": {9, 0, 0, 0, 0, 0, 0, 1, 'x'}, "no time": {1, 0, 0, 0, 0, 0, 0, 2, 'x', '\n'},
	} {
		if err := demuxLogs(bytes.NewReader(in), time.Time{}, accept); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := demuxLogs(bytes.NewReader(whole), time.Time{}, func(dstack.LogLine) bool { return false }); err == nil {
		t.Error("demuxLogs continues after the reader has stopped")
	}
}

func TestFindSocket(t *testing.T) {
	env := map[string]string{"HOME": "/home/x", "XDG_RUNTIME_DIR": "/run/user/7"}
	for _, c := range []struct{ existing, want string }{
		{"/var/run/docker.sock", ""},
		{"", ""},
		{"/run/user/7/docker.sock", "unix:///run/user/7/docker.sock"},
		{"/home/x/.docker/run/docker.sock", "unix:///home/x/.docker/run/docker.sock"},
	} {
		got := findSocket(func(name string) string { return env[name] }, func(path string) bool { return path == c.existing })
		if got != c.want {
			t.Errorf("the socket is %q if %q exists, want %q", got, c.existing, c.want)
		}
	}
	env["DOCKER_HOST"] = "unix:///mine"
	if got := findSocket(func(name string) string { return env[name] }, func(string) bool { return true }); got != "" {
		t.Errorf("DOCKER_HOST is overridden by %q", got)
	}
}

// The test runs the shells on this machine, without a terminal: they print nothing of
// their own, bash reads its start-up file, and both wait for their processes when
// SIGTERM reaches the process group.
func TestBuildEntrypoint_RunsShells(t *testing.T) {
	const script = `echo "rc: $FROM_RC"; echo err >&2; (trap 'echo got SIGTERM; exit 0' TERM; echo up; while :; do sleep 0.02; done) & wait; echo after`
	for _, shell := range []string{"/bin/bash", "/bin/sh"} {
		t.Run(shell, func(t *testing.T) {
			if !pathExists(shell) {
				t.Skip("needs " + shell + ": this machine has none")
			}
			home := t.TempDir()
			if err := os.WriteFile(filepath.Join(home, ".bashrc"), []byte("FROM_RC=yes; echo noise; echo noise >&2\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			argv := engine.BuildEntrypoint([]string{shell, "-i", "-c", script})
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
				t.Errorf("the shell ended with %v", err)
			}
			rc := map[string]string{"/bin/bash": "rc: yes", "/bin/sh": "rc: "}[shell]
			// An interactive shell prints the numbers of background jobs, and every
			// shell reports a command (sleep) that a signal ended.
			isNotice := regexp.MustCompile(`^(\[\d+\] \d+|Terminated)$`).MatchString
			lines = slices.DeleteFunc(lines, isNotice)
			if want := []string{rc, "err", "up", "got SIGTERM"}; !slices.Equal(lines, want) {
				t.Errorf("stdout: %q, want %q", lines, want)
			}
			if stderr.Len() > 0 {
				t.Errorf("stderr: %q", stderr.String())
			}
		})
	}
}

// NVIDIA's runtime gets the IDs of its GPUs; GPUs of AMD are devices.
func TestNewContainerOptions_GPUs(t *testing.T) {
	e := &Engine{}
	spec := dstack.AttemptSpec{Attempt: "a", Port: 8000, GPUs: []dstack.GPU{{ID: "GPU-1", Maker: "nvidia"}, {ID: "GPU-2"}}}
	got, err := e.newContainerOptions(spec, "x", true)
	if err != nil {
		t.Fatal(err)
	}
	if r := got.HostConfig.DeviceRequests; len(r) != 1 || !slices.Equal(r[0].DeviceIDs, []string{"GPU-1", "GPU-2"}) || len(got.HostConfig.Devices) != 0 {
		t.Errorf("two GPUs of NVIDIA: %+v, %+v", r, got.HostConfig.Devices)
	}
	spec.GPUs = []dstack.GPU{{ID: "renderD129", Maker: "amd"}, {ID: "renderD131", Maker: "amd"}}
	if got, err = e.newContainerOptions(spec, "x", true); err != nil {
		t.Fatal(err)
	}
	var devices []string
	for _, d := range got.HostConfig.Devices {
		devices = append(devices, d.PathOnHost+" "+d.PathInContainer+" "+d.CgroupPermissions)
	}
	want := []string{"/dev/kfd /dev/kfd rwm", "/dev/dri/renderD129 /dev/dri/renderD129 rwm", "/dev/dri/renderD131 /dev/dri/renderD131 rwm"}
	if !slices.Equal(devices, want) || got.HostConfig.DeviceRequests != nil {
		t.Errorf("two GPUs of AMD: %v, %+v", devices, got.HostConfig.DeviceRequests)
	}
	if !slices.Contains(got.Config.Env, "NVIDIA_VISIBLE_DEVICES=void") {
		t.Errorf("an image that wants all GPUs of NVIDIA would get them: %v", got.Config.Env)
	}
}
