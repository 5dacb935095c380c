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

// server is one dstack server with a home of its own.
type server struct {
	binary string
	home   string
	port   int
	cmd    *exec.Cmd
}

func startServer(binary, home, engine string) (*server, error) {
	s := &server{binary: binary, home: home}
	config := filepath.Join(home, ".dstack", "server", "config.yml")
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		return nil, err
	}
	text := "projects:\n- name: main\n  backends:\n  - type: local\n    engine: " + engine + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var err error
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	s.cmd = s.command(home, "server", "--port", strconv.Itoa(s.port), "--token", token, "--default")
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := until(fmt.Sprintf("http://127.0.0.1:%d/healthcheck", s.port), "", 20*time.Second); err != nil {
		s.stop()
		return nil, fmt.Errorf("the server does not answer: %w", err)
	}
	return s, nil
}

func (s *server) command(dir string, args ...string) *exec.Cmd {
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

func (s *server) stop() {
	_ = s.cmd.Process.Signal(os.Interrupt) // it may have ended
	_ = s.cmd.Wait()
}

// cli runs a command of the user.
func (s *server) cli(dir string, args ...string) error {
	out, err := s.command(dir, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dstack %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// serve applies a configuration and returns when the gateway has given the
// first answer. The command runs beside the calls, as it does for users.
func (s *server) serve(name, dir string) (time.Duration, error) {
	began := time.Now()
	applied := make(chan error, 1)
	go func() { applied <- s.cli(dir, "apply", "-f", "service.dstack.yml", "-y", "-d") }()
	err := until(fmt.Sprintf("http://127.0.0.1:%d/", s.port), fmt.Sprintf("%s.localhost:%d", name, s.port), time.Minute)
	took := time.Since(began)
	return took, errors.Join(err, <-applied)
}

func (s *server) end(name, dir string) error { return s.cli(dir, "stop", name, "-y", "--abort") }

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}

// until calls until the answer is 200, a millisecond after each other one.
func until(url, host string, limit time.Duration) error {
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
