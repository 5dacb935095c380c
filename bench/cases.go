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

// startCases returns what measureStart measures in each round.
func (b *benchmark) startCases() []benchmarkCase {
	all := []benchmarkCase{
		{"process floor", b.measureSpawn},
		{"process", func() (float64, error) { return b.measureApply("process", "HOST=127.0.0.1", b.workload) }},
		{"process folder", func() (float64, error) { return b.measureApply("process", "HOST=127.0.0.1", "./workload") }},
		{"read floor", b.measureReadFloor},
		{"read", b.measureRead},
		{"validate", b.measureValidate},
		{"cli", func() (float64, error) { return measureCPU(b.binary, "--version") }},
	}
	if b.dockerMissing == "" {
		all = append(all,
			benchmarkCase{"docker floor", b.measureDockerRun},
			benchmarkCase{"docker", func() (float64, error) {
				return b.measureApply("docker", "HOST=0.0.0.0", "/workload", "image: "+workloadImage)
			}},
			benchmarkCase{"docker cli", func() (float64, error) { return measureCPU("docker", "--version") }},
		)
	}
	return all
}

// measureApply measures from `dstack apply` to the first response through the gateway.
func (b *benchmark) measureApply(engine, env, command string, more ...string) (float64, error) {
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
	took, err := b.servers[engine].applyAndWait(name, dir)
	return toMilliseconds(took), errors.Join(err, b.servers[engine].removeService(name, dir))
}

// measureSpawn is the floor for processes: the same command, started directly.
func (b *benchmark) measureSpawn() (float64, error) {
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
	err = waitUntilServed(fmt.Sprintf("http://127.0.0.1:%d/", port), "", time.Minute)
	took := time.Since(began)
	err = errors.Join(err, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	return toMilliseconds(took), err
}

// measureDockerRun is the floor for containers: docker run, and requests to its port.
func (b *benchmark) measureDockerRun() (float64, error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	id, err := runCommand("docker", "run", "-d", "--rm", "-p", fmt.Sprintf("127.0.0.1:%d:8000", port), workloadImage, "/bin/sh", "-c", "exec /workload 8000")
	if err != nil {
		return 0, err
	}
	err = waitUntilServed(fmt.Sprintf("http://127.0.0.1:%d/", port), "", time.Minute)
	took := time.Since(began)
	_, stop := runCommand("docker", "kill", id)
	return toMilliseconds(took), errors.Join(err, stop)
}

// measureCPU returns the CPU time of a command.
func measureCPU(name string, args ...string) (float64, error) {
	cmd := exec.Command(name, args...)
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return toMilliseconds(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()), nil
}

func toMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// idleMemory returns the memory of a server without runs, in MB.
func (b *benchmark) idleMemory() (float64, error) {
	s, err := startServer(b.binary, filepath.Join(b.dir, "idle"), "process")
	if err != nil {
		return 0, err
	}
	defer s.stop()
	time.Sleep(5 * time.Second) // the server is idle once its start is over
	kilobytes, err := residentMemory(s.cmd.Process.Pid)
	return kilobytes / 1024, err
}
