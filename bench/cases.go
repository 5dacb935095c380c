package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// cases is everything that is measured in each round.
func (b *bench) cases() []measured {
	all := []measured{
		{"process floor", b.spawn},
		{"process", func() (float64, error) { return b.apply("process", "HOST=127.0.0.1", b.workload) }},
		{"process folder", func() (float64, error) { return b.apply("process", "HOST=127.0.0.1", "./workload") }},
		{"read floor", b.readFloor},
		{"read", b.read},
		{"validate", b.validate},
		{"cli", func() (float64, error) { return cpu(b.binary, "--version") }},
	}
	if b.docker == "" {
		all = append(all,
			measured{"docker floor", b.dockerRun},
			measured{"docker", func() (float64, error) { return b.apply("docker", "HOST=0.0.0.0", "/workload", "image: "+image) }},
			measured{"docker cli", func() (float64, error) { return cpu("docker", "--version") }},
		)
	}
	return all
}

// apply is ours: from the command to the first answer through the gateway.
func (b *bench) apply(engine, env, command string, more ...string) (float64, error) {
	b.runs++
	name := fmt.Sprintf("bench-%d", b.runs)
	dir := filepath.Join(b.dir, name)
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	config := fmt.Sprintf("type: service\nname: %s\nport: %d\nenv: [%s]\ncommands:\n- exec %s %d\n%s\n",
		name, port, env, command, port, strings.Join(more, "\n"))
	if err := os.WriteFile(filepath.Join(dir, "service.dstack.yml"), []byte(config), 0o600); err != nil {
		return 0, err
	}
	if command == "./workload" {
		if err := os.Link(b.workload, filepath.Join(dir, "workload")); err != nil {
			return 0, err
		}
	}
	took, err := b.servers[engine].serve(name, dir)
	return milliseconds(took), errors.Join(err, b.servers[engine].end(name, dir))
}

// spawn is the floor for processes: the same command, started by hand.
func (b *bench) spawn() (float64, error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/bin/bash", "-c", fmt.Sprintf("exec %s %d", b.workload, port))
	cmd.Env = append(os.Environ(), "HOST=127.0.0.1")
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = until(fmt.Sprintf("http://127.0.0.1:%d/", port), "", time.Minute)
	took := time.Since(began)
	err = errors.Join(err, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	return milliseconds(took), err
}

// dockerRun is the floor for containers: docker run, and calls to its port.
func (b *bench) dockerRun() (float64, error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	id, err := output("docker", "run", "-d", "--rm", "-p", fmt.Sprintf("127.0.0.1:%d:8000", port), image, "/bin/sh", "-c", "exec /workload 8000")
	if err != nil {
		return 0, err
	}
	err = until(fmt.Sprintf("http://127.0.0.1:%d/", port), "", time.Minute)
	took := time.Since(began)
	_, stop := output("docker", "kill", id)
	return milliseconds(took), errors.Join(err, stop)
}

// cpu is the time that a command keeps a processor busy.
func cpu(name string, args ...string) (float64, error) {
	cmd := exec.Command(name, args...)
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return milliseconds(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()), nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// idleMemory is that of a server that has just started and serves nothing, in MB.
func (b *bench) idleMemory() (float64, error) {
	s, err := startServer(b.binary, filepath.Join(b.dir, "idle"), "process")
	if err != nil {
		return 0, err
	}
	defer s.stop()
	time.Sleep(5 * time.Second) // idle is what comes after the start
	kilobytes, err := resident(s.cmd.Process.Pid)
	return kilobytes / 1024, err
}
