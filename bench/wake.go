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
	// rest is how long a service that was just made is left alone, so that its
	// making is not measured.
	rest = 500 * time.Millisecond

	lagTarget = 10               // requests a second that one replica gets
	lagWindow = 5                // seconds over which they are averaged
	lagDelay  = 1                // scale_up_delay, in seconds
	lagLimit  = 20 * time.Second // then it has failed
)

// waking is what a sleeping service of one engine takes to answer its first
// request.
func (b *bench) waking(engine, env, command string, more ...string) (took float64, err error) {
	name, s := b.next("wake"), b.servers[engine]
	scaling := fmt.Sprintf("replicas: 0..1\nscaling: {metric: rps, target: %d, scale_up_delay: 1s, scale_down_delay: 1m}", lagTarget)
	dir, err := b.publish(s, name, env, command, append(more, scaling)...)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.end(name, dir)) }()
	time.Sleep(rest)
	began := time.Now()
	err = until(fmt.Sprintf("http://127.0.0.1:%d/", s.port), fmt.Sprintf("%s.localhost:%d", name, s.port), time.Minute)
	return milliseconds(time.Since(began)), err
}

// lag is how long after the load asks for one more replica it is asked for.
// Nothing else is missing by then: scale_up_delay is over.
func (b *bench) lag() (took float64, err error) {
	name, s := b.next("lag"), b.servers["process"]
	dir, err := b.publish(s, name, "HOST=127.0.0.1", b.workload, "replicas: 1..2", fmt.Sprintf(
		"scaling: {metric: rps, target: %d, window: %ds, scale_up_delay: %ds, scale_down_delay: 1m}", lagTarget, lagWindow, lagDelay))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.end(name, dir)) }()
	url, host := fmt.Sprintf("http://127.0.0.1:%d/", s.port), fmt.Sprintf("%s.localhost:%d", name, s.port)
	if err := until(url, host, time.Minute); err != nil {
		return 0, err
	}
	// The gateway tells each second: the burst comes at any time within one.
	time.Sleep(lagDelay*time.Second + rest + rand.N(time.Second))
	due := time.Now() // a little later, by what the burst takes
	for range lagTarget*lagWindow + 10 {
		if err := until(url, host, time.Second); err != nil {
			return 0, err
		}
	}
	asked, err := s.scaled(name, due)
	return milliseconds(asked.Sub(due)), err
}

// scaled waits for a run's second replica to be asked for, and says when it was.
func (s *server) scaled(name string, after time.Time) (time.Time, error) {
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
	return time.Time{}, fmt.Errorf("%s: no second replica was asked for within %s", name, lagLimit)
}

// post calls the server's API.
func (s *server) post(path string, ask, answer any) error {
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
	defer func() { _ = res.Body.Close() }() // it is read
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(answer)
}

// next is a name that no run has had.
func (b *bench) next(kind string) string {
	b.runs++
	return fmt.Sprintf("bench-%s-%d", kind, b.runs)
}

// publish applies a service that runs the workload and returns when the server
// has taken it, with the folder of its file.
func (b *bench) publish(s *server, name, env, command string, more ...string) (dir string, err error) {
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
	return dir, s.cli(dir, "apply", "-f", "service.dstack.yml", "-y", "-d")
}
