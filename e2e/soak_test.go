package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	soakGrowth = 1.02 // times: the most that goroutines, descriptors and memory may grow
	soakRest   = 15 * time.Second
)

// TestSoak loads a server with a mix of requests for an hour, or as long as DSTACK_TEST_SOAK says, and compares what it holds after a
// tenth of the time with what it holds at the end: goroutines and descriptors while nothing is asked of it, memory under the load.
// scripts/test.sh soak runs it; `make sim` does.
func TestSoak(t *testing.T) {
	text := os.Getenv("DSTACK_TEST_SOAK")
	if text == "" {
		return // it takes too long for all tests
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	h := newStoppedHarness(t, "process")
	metrics := findFreePort(t)
	h.serverArgs = []string{"--port", strconv.Itoa(h.port), "--default", "--metrics", fmt.Sprint("127.0.0.1:", metrics)}
	h.startServer()
	port := findFreePort(t)
	h.applyAndWait(h.newFolder(fmt.Sprintf("type: service\nname: soak\nport: %d\nenv: [HOST=127.0.0.1]\ncommands:\n- exec %s %[1]d\n"+
		"model: {type: chat, name: soak, format: openai}\n", port, workloadBinary)))
	s := &soak{h: h, metrics: fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics)}
	first := s.load(t, length/10)
	restedFirst := s.rest(t)
	last := s.load(t, length-length/10)
	restedLast := s.rest(t)
	t.Logf("%d requests; after a tenth of the time %v at rest, %v under load; at the end %v, %v", s.done.Load(), restedFirst, first, restedLast, last)
	for _, one := range []struct {
		what        string
		before, now float64
		slack       float64
	}{
		{"goroutines", restedFirst.goroutines, restedLast.goroutines, 2},
		{"descriptors", restedFirst.descriptors, restedLast.descriptors, 2},
		{"live memory under load", first.live, last.live, 1 << 20},
		{"resident memory", first.resident, last.resident, 1 << 20},
	} {
		if one.now > one.before*soakGrowth+one.slack {
			t.Errorf("%s: %.0f at the end, %.0f before", one.what, one.now, one.before)
		}
	}
}

// soak is a server under load.
type soak struct {
	h       *harness
	metrics string
	done    atomic.Int64
}

// soakSample is what a server holds; medians of many samples.
type soakSample struct{ goroutines, descriptors, live, resident float64 }

func (s soakSample) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f descriptors, %.1f MB live, %.1f MB resident", s.goroutines, s.descriptors, s.live/1e6, s.resident/1e6)
}

// soakClients are the kinds of clients; each sends requests until it is told to stop.
var soakClients = []struct {
	count int
	send  func(s *soak, client *http.Client) error
}{
	{4, (*soak).get},
	{2, (*soak).ask},
	{3, (*soak).readStream},
	{2, (*soak).leaveStream},
	{1, (*soak).upload},
	{1, (*soak).connectAndLeave},
	{1, (*soak).sendInvalid},
}

// load sends requests of all kinds and returns what the server held in the last third.
func (s *soak) load(t *testing.T, length time.Duration) soakSample {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), length)
	defer stop()
	var group sync.WaitGroup
	for _, kind := range soakClients {
		for range kind.count {
			group.Go(func() {
				client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
				defer client.CloseIdleConnections()
				for ctx.Err() == nil {
					if err := kind.send(s, client); err != nil {
						t.Error(err)
						return
					}
					s.done.Add(1)
					time.Sleep(rand.N(10 * time.Millisecond))
				}
			})
		}
	}
	begin := time.Now()
	var all []soakSample
	for ctx.Err() == nil {
		if time.Since(begin) > length*2/3 {
			all = append(all, s.sample(t))
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(time.Second, length/300)):
		}
	}
	group.Wait()
	return takeMedian(all)
}

// rest lets the server finish and returns what it holds then.
func (s *soak) rest(t *testing.T) soakSample {
	t.Helper()
	time.Sleep(soakRest)
	var all []soakSample
	for range 9 {
		all = append(all, s.sample(t))
		time.Sleep(time.Second)
	}
	return takeMedian(all)
}

func takeMedian(all []soakSample) soakSample {
	middle := func(of func(soakSample) float64) float64 {
		values := make([]float64, 0, len(all))
		for _, one := range all {
			values = append(values, of(one))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return soakSample{middle(func(s soakSample) float64 { return s.goroutines }), middle(func(s soakSample) float64 { return s.descriptors }),
		middle(func(s soakSample) float64 { return s.live }), middle(func(s soakSample) float64 { return s.resident })}
}

// sample reads the metrics. The runtime collects garbage when the heap has twice the size of what was live.
func (s *soak) sample(t *testing.T) soakSample {
	t.Helper()
	res, err := http.Get(s.metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		values[name], _ = strconv.ParseFloat(value, 64)
	}
	if err := errors.Join(lines.Err(), errorIf(values["go_goroutines"] == 0, "no metrics")); err != nil {
		t.Fatal(err)
	}
	return soakSample{values["go_goroutines"], values["process_open_fds"], values["go_memstats_next_gc_bytes"] / 2,
		values["process_resident_memory_bytes"]}
}

func errorIf(is bool, text string) error {
	if is {
		return errors.New(text)
	}
	return nil
}

// do sends a request and checks the status of the response.
func (s *soak) do(client *http.Client, method, path string, body io.Reader, status int) (*http.Response, error) {
	url := s.h.serverURL() + "/proxy/services/main/soak" + path
	if strings.HasPrefix(path, "/v1/") {
		url = s.h.serverURL() + "/proxy/models/main" + path
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.h.token)
	res, err := client.Do(req)
	if err == nil && res.StatusCode != status {
		text, _ := io.ReadAll(res.Body)
		err = errors.Join(fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text), res.Body.Close())
	}
	return res, err
}

func (s *soak) doWhole(client *http.Client, method, path string, body io.Reader, status int) error {
	res, err := s.do(client, method, path, body, status)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

func (s *soak) get(client *http.Client) error {
	return s.doWhole(client, "GET", "/who", nil, http.StatusOK)
}

const soakAsk = `{"model":"soak","messages":[{"role":"user","content":"%s"}]}`

func (s *soak) ask(client *http.Client) error {
	body := fmt.Sprintf(soakAsk, strings.Repeat("word ", rand.N(20_000)))
	return s.doWhole(client, "POST", "/v1/chat/completions", strings.NewReader(body), http.StatusOK)
}

func (s *soak) readStream(client *http.Client) error {
	body := fmt.Sprintf(soakAsk, "a stream")
	return s.doWhole(client, "POST", "/v1/chat/completions", strings.NewReader(`{"stream":true,`+body[1:]), http.StatusOK)
}

// leaveStream begins to read events and leaves.
func (s *soak) leaveStream(client *http.Client) error {
	res, err := s.do(client, "GET", "/events?ms=5", nil, http.StatusOK)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(res.Body, make([]byte, 1+rand.N(60)))
	return errors.Join(err, res.Body.Close())
}

func (s *soak) upload(client *http.Client) error {
	body := make([]byte, rand.N(4<<20))
	var reader io.Reader = bytes.NewReader(body)
	if rand.N(2) == 0 {
		reader = io.MultiReader(reader) // its length is not known: chunks
	}
	return s.doWhole(client, "POST", "/size", reader, http.StatusOK)
}

// connectAndLeave opens a connection, sends a part of a request, and leaves.
func (s *soak) connectAndLeave(*http.Client) error {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.h.serverURL(), "http://"))
	if err != nil {
		return err
	}
	request := "POST /proxy/services/main/soak/size HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + s.h.token +
		"\r\nContent-Length: 100\r\n\r\n" + strings.Repeat("x", 50)
	_, err = io.WriteString(conn, request[:rand.N(len(request))])
	time.Sleep(rand.N(20 * time.Millisecond))
	return errors.Join(err, conn.Close())
}

// sendInvalid sends a request without a token, which gets a response, or one that is refused.
func (s *soak) sendInvalid(client *http.Client) error {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.h.serverURL(), "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /proxy/services/main/soak/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"); err != nil {
		return err
	}
	_, _ = io.ReadAll(conn) // a refusal, after which the connection ends
	req, err := http.NewRequest(http.MethodGet, s.h.serverURL()+"/proxy/services/main/soak/", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close(), errorIf(res.StatusCode != http.StatusUnauthorized, res.Status))
}
