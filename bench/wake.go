package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

const (
	// restTime is the wait after a service was submitted, so that the submission is not measured.
	restTime = 500 * time.Millisecond

	lagTarget = 10               // requests per second for one replica
	lagWindow = 5                // seconds over which they are averaged
	lagDelay  = 1                // scale_up_delay, in seconds
	lagLimit  = 20 * time.Second // after this the measurement fails
)

// measureWake returns how long a sleeping service takes to answer its first request.
func (b *benchmark) measureWake(engine, env, command string, more ...string) (took float64, err error) {
	name, s := b.nextName("wake"), b.servers[engine]
	scaling := fmt.Sprintf("replicas: 0..1\nscaling: {metric: rps, target: %d, scale_up_delay: 1s, scale_down_delay: 1m}", lagTarget)
	dir, err := b.publish(s, name, env, command, append(more, scaling)...)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.removeService(name, dir)) }()
	time.Sleep(restTime)
	began := time.Now()
	err = waitUntilServed(fmt.Sprintf("http://127.0.0.1:%d/", s.port), fmt.Sprintf("%s.localhost:%d", name, s.port), time.Minute)
	return toMilliseconds(time.Since(began)), err
}

// measureScaleUpLag returns the time from the moment when the load needs one more replica until the replica is created.
// scale_up_delay has passed before.
func (b *benchmark) measureScaleUpLag() (took float64, err error) {
	name, s := b.nextName("lag"), b.servers["process"]
	dir, err := b.publish(s, name, "HOST=127.0.0.1", b.workload, "replicas: 1..2", fmt.Sprintf(
		"scaling: {metric: rps, target: %d, window: %ds, scale_up_delay: %ds, scale_down_delay: 1m}", lagTarget, lagWindow, lagDelay))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.removeService(name, dir)) }()
	url, host := fmt.Sprintf("http://127.0.0.1:%d/", s.port), fmt.Sprintf("%s.localhost:%d", name, s.port)
	if err := waitUntilServed(url, host, time.Minute); err != nil {
		return 0, err
	}
	// The gateway reports once per second, so the burst begins at a random time within a second.
	time.Sleep(lagDelay*time.Second + restTime + rand.N(time.Second))
	due := time.Now() // in fact a little later, because the burst takes time
	for range lagTarget*lagWindow + 10 {
		if err := waitUntilServed(url, host, time.Second); err != nil {
			return 0, err
		}
	}
	asked, err := s.waitForScaleUp(name, due)
	return toMilliseconds(asked.Sub(due)), err
}

// waitForScaleUp waits until a run's second replica is desired, and returns when that was decided.
func (s *dstackServer) waitForScaleUp(name string, after time.Time) (time.Time, error) {
	for after := after.Add(lagLimit); time.Now().Before(after); time.Sleep(20 * time.Millisecond) {
		var events []api.EventView
		if err := s.post("/api/project/main/runs/events", api.EventsRequest{RunName: name}, &events); err != nil {
			return time.Time{}, err
		}
		for _, e := range events {
			if e.Kind == dstack.EventScaled && e.To == "2" {
				return e.At, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%s: no second replica was created within %s", name, lagLimit)
}

// post calls the server's API.
func (s *dstackServer) post(path string, ask, answer any) error {
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	req, err := http.NewRequest("POST", fmt.Sprintf("http://127.0.0.1:%d%s", s.port, path), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // the body was read
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(answer)
}

// nextName returns a run name that is not in use.
func (b *benchmark) nextName(kind string) string {
	b.runs++
	return fmt.Sprintf("bench-%s-%d", kind, b.runs)
}

// publish applies a service that runs the workload, and returns the folder of its configuration.
func (b *benchmark) publish(s *dstackServer, name, env, command string, more ...string) (dir string, err error) {
	dir = filepath.Join(b.dir, name)
	port, err := freePort()
	if err != nil {
		return dir, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return dir, err
	}
	config := fmt.Sprintf("type: service\nname: %s\nport: %d\nenv: [%s]\ncommands:\n- exec %s %d\n", name, port, env, command, port)
	for _, text := range more {
		config += text + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "service.dstack.yml"), []byte(config), 0o600); err != nil {
		return dir, err
	}
	return dir, s.runCLI(dir, "apply", "-f", "service.dstack.yml", "-y", "-d")
}
