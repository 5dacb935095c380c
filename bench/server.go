package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const token = "bench-0123456789-bench-0123456789"

// dstackServer is a dstack server with its own home folder.
type dstackServer struct {
	binary string
	home   string
	port   int
	cmd    *exec.Cmd
}

func startServer(binary, home, engine string, flags ...string) (*dstackServer, error) {
	return startServerWith(binary, home, "type: local\n    engine: "+engine, flags...)
}

// startServerWith starts a server with a backend, whose settings are lines of its config.yml.
func startServerWith(binary, home, backend string, flags ...string) (*dstackServer, error) {
	s := &dstackServer{binary: binary, home: home}
	config := filepath.Join(home, ".dstack", "server", "config.yml")
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		return nil, err
	}
	text := "projects:\n- name: main\n  backends:\n  - " + backend + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var err error
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	s.cmd = s.newCommand(home, append([]string{"server", "--port", strconv.Itoa(s.port), "--token", token, "--default"}, flags...)...)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := waitUntilServed(fmt.Sprintf("http://127.0.0.1:%d/healthcheck", s.port), "", 20*time.Second); err != nil {
		s.stop()
		return nil, fmt.Errorf("the server does not answer: %w", err)
	}
	return s, nil
}

func (s *dstackServer) newCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(s.binary, args...)
	cmd.Dir = dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DSTACK_") && !strings.HasPrefix(v, "HOME=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+s.home)
	return cmd
}

func (s *dstackServer) stop() {
	_ = s.cmd.Process.Signal(os.Interrupt) // it may have ended already
	_ = s.cmd.Wait()
}

// runCLI runs the command line as a user of the server.
func (s *dstackServer) runCLI(dir string, args ...string) error {
	out, err := s.newCommand(dir, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dstack %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// applyAndWait applies a configuration and returns the time until the first response through the gateway. The requests
// are sent while the command still runs, as users do.
func (s *dstackServer) applyAndWait(name, dir string) (time.Duration, error) {
	began := time.Now()
	applied := make(chan error, 1)
	go func() { applied <- s.runCLI(dir, "apply", "-f", "service.dstack.yml", "-y", "-d") }()
	err := waitUntilServed(fmt.Sprintf("http://127.0.0.1:%d/", s.port), fmt.Sprintf("%s.localhost:%d", name, s.port), time.Minute)
	took := time.Since(began)
	return took, errors.Join(err, <-applied)
}

func (s *dstackServer) removeService(name, dir string) error {
	return s.runCLI(dir, "stop", name, "-y", "--abort")
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}

// waitUntilServed sends requests until the response is 200, with a millisecond in between.
func waitUntilServed(url, host string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	last := errors.New("no answer")
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return err
		}
		req.Host = host
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := client.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(res.Status)
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", url, last)
		case <-tick.C:
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
