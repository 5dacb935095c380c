package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	keyGateways   = 3
	keysPerRound  = 10
	gatewayDomain = "apps.example.test"
)

// measureKeys measures from the revocation of a key for callers until gateway processes refuse it.
func (b *benchmark) measureKeys(rounds int) (err error) {
	s, err := startServer(b.binary, filepath.Join(b.dir, "keys"), "process")
	if err != nil {
		return err
	}
	defer s.stop()
	gateways, err := s.startGateways(keyGateways)
	defer func() {
		for _, g := range gateways {
			_ = g.cmd.Process.Kill() // it may have ended already
			_ = g.cmd.Wait()
		}
	}()
	if err != nil {
		return err
	}
	var all []float64
	for i := range rounds * keysPerRound {
		took, err := s.revokeKey(fmt.Sprint("key-", i), gateways)
		if err != nil {
			return err
		}
		all = append(all, float64(took)/float64(time.Millisecond))
	}
	slices.Sort(all)
	fmt.Printf("%d keys revoked, until all of %d gateway processes refuse them: median %.0f ms, 99th percentile %.0f ms, longest %.0f ms\n",
		len(all), keyGateways, all[len(all)/2], all[len(all)*99/100], all[len(all)-1])
	return nil
}

// gatewayProcess is a `dstack gateway serve`.
type gatewayProcess struct {
	cmd  *exec.Cmd
	port int
}

// startGateways creates a gateway without certificates, and starts processes that serve it.
func (s *dstackServer) startGateways(n int) (all []gatewayProcess, err error) {
	file := filepath.Join(s.home, "gateway.dstack.yml")
	text := "type: gateway\nname: front\nbackend: external\ndomain: " + gatewayDomain + "\ncertificate: null\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := s.runCLI(s.home, "apply", "-f", file, "-y", "-d"); err != nil {
		return nil, err
	}
	for i := range n {
		out, err := s.newCommand(s.home, "gateway", "token", "front", "-o", "json").Output()
		if err != nil {
			return all, fmt.Errorf("dstack gateway token: %w", err)
		}
		var made struct{ Token string }
		if err := json.Unmarshal(out, &made); err != nil {
			return all, err
		}
		httpPort, err := freePort()
		if err != nil {
			return all, err
		}
		httpsPort, err := freePort()
		if err != nil {
			return all, err
		}
		cmd := s.newCommand(s.home, "gateway", "serve", "--server", fmt.Sprintf("http://127.0.0.1:%d", s.port), "--token", made.Token,
			"--dir", filepath.Join(s.home, fmt.Sprint("gateway-", i)), "--gateway-host", "127.0.0.1",
			"--http-port", strconv.Itoa(httpPort), "--https-port", strconv.Itoa(httpsPort))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return all, err
		}
		all = append(all, gatewayProcess{cmd, httpPort})
	}
	return all, nil
}

// startAgain starts a process that has stopped, and returns the time until its first response.
func (g gatewayProcess) startAgain() (gatewayProcess, time.Duration, error) {
	again := gatewayProcess{cmd: &exec.Cmd{Path: g.cmd.Path, Args: g.cmd.Args, Env: g.cmd.Env, Dir: g.cmd.Dir, Stderr: os.Stderr}, port: g.port}
	began := time.Now()
	if err := again.cmd.Start(); err != nil {
		return again, 0, err
	}
	err := again.waitUntilServed(20 * time.Second)
	return again, time.Since(began), err
}

// waitUntilServed waits for the first response of a service.
func (g gatewayProcess) waitUntilServed(limit time.Duration) error {
	return waitUntilServed(fmt.Sprintf("http://127.0.0.1:%d/", g.port), fmt.Sprintf("web-%d.%s", routeServices/2, gatewayDomain), limit)
}

func (g gatewayProcess) stop() error {
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return g.cmd.Wait()
}

// revokeKey creates a key, waits until all gateways accept it, revokes it, and returns the time until all refuse it.
func (s *dstackServer) revokeKey(name string, gateways []gatewayProcess) (time.Duration, error) {
	var made struct{ Key string }
	if err := s.callAPI("keys/create", `{"name": "`+name+`", "services": ["other"]}`, &made); err != nil {
		return 0, err
	}
	// A key that is valid, and not for this service, gets 403 without a wait; a revoked one gets 401.
	if err := waitForStatus(gateways, made.Key, http.StatusForbidden); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := s.callAPI("keys/revoke", `{"names": ["`+name+`"]}`, nil); err != nil {
		return 0, err
	}
	err := waitForStatus(gateways, made.Key, http.StatusUnauthorized)
	return time.Since(begin), err
}

// callAPI calls an operation of the project main.
func (s *dstackServer) callAPI(operation, body string, out any) error {
	address := fmt.Sprintf("http://127.0.0.1:%d/api/project/main/%s", s.port, operation)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", operation, res.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(out)
}

// waitForStatus waits until each gateway answers a request with a key with a status.
func waitForStatus(gateways []gatewayProcess, key string, status int) error {
	results := make(chan error, len(gateways))
	for _, g := range gateways {
		go func() { results <- g.waitForStatus(key, status) }()
	}
	var errs []error
	for range gateways {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

func (g gatewayProcess) waitForStatus(key string, status int) error {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(g.port))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+address+"/", nil)
		if err != nil {
			return err
		}
		req.Host = "any." + gatewayDomain
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == status {
				return nil
			}
			err = errors.New(res.Status)
		}
		if time.Now().After(end) {
			return fmt.Errorf("the gateway does not answer with %d: %w", status, err)
		}
	}
}
