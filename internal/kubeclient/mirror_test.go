package kubeclient_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/kubeclient"
)

// apiServer is a fake API server with the pods of one namespace, whose watches do what a test says.
type apiServer struct {
	mu                     sync.Mutex
	pods                   []string
	version                int
	lists, watches, checks atomic.Int32
	list, watch, health    func(w http.ResponseWriter, r *http.Request) // nil: as a sound API server
	connections            sync.Map
}

func startAPIServer(t *testing.T, s *apiServer) *kubeclient.Client {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return openClient(t, kubeclient.Options{KubeconfigData: newKubeconfig(server.URL), Namespace: "n"})
}

func newKubeconfig(server string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}],
		users: [{name: u, user: {token: secret}}], contexts: [{name: c, context: {cluster: c, user: u}}]}`, server)
}

func (s *apiServer) set(version int, pods ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.pods = version, pods
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.connections.Store(r.RemoteAddr, true)
	query := r.URL.Query()
	serve := s.list
	switch {
	case query.Get("watch") == "true":
		s.watches.Add(1)
		if serve = s.watch; serve == nil {
			serve = keepWatch
		}
	case query.Get("limit") == "1":
		s.checks.Add(1)
		if serve = s.health; serve == nil {
			serve = s.serveList
		}
	default:
		s.lists.Add(1)
		if serve == nil {
			serve = s.serveList
		}
	}
	serve(w, r)
}

// serveList lists the pods, one a page.
func (s *apiServer) serveList(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &first) // the first page has none
	metadata := map[string]any{"resourceVersion": fmt.Sprint(s.version)}
	items := []any{}
	if first < len(s.pods) {
		items = append(items, podOf(s.pods[first], s.version))
	}
	if first+1 < len(s.pods) {
		metadata["continue"] = fmt.Sprint(first + 1)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})
}

func podOf(name string, version int) map[string]any {
	return map[string]any{"kind": "Pod", "apiVersion": "v1",
		"metadata": map[string]any{"name": name, "namespace": "n", "resourceVersion": fmt.Sprint(version), "managedFields": []any{map[string]any{"manager": "x"}}}}
}

func keepWatch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// sendEvents returns a watch that sends events and goes on, or ends.
func sendEvents(goOn bool, events ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, e := range events {
			_, _ = fmt.Fprintln(w, e)
		}
		_ = http.NewResponseController(w).Flush()
		if goOn {
			<-r.Context().Done()
		}
	}
}

func eventOf(kind, pod string, version int) string {
	object, _ := json.Marshal(podOf(pod, version))
	return fmt.Sprintf(`{"type":%q,"object":%s}`, kind, object)
}

func errorEvent(code int, reason, text string) string {
	return fmt.Sprintf(`{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":%q}}`, code, reason, text)
}

func newMirror(t *testing.T, c *kubeclient.Client) *kubeclient.Mirror[corev1.Pod] {
	t.Helper()
	m := kubeclient.NewMirror(c, kubeclient.Pods, kubeclient.MirrorOptions{IsOurs: true})
	runTasks(t, append(c.Tasks(), m.Tasks()...)...)
	return m
}

// waitForNames waits until a mirror has exactly these pods.
func waitForNames(t *testing.T, m *kubeclient.Mirror[corev1.Pod], want ...string) {
	t.Helper()
	waitUntil(t, 10*time.Second, func() error {
		names := []string{}
		for _, pod := range m.List() {
			names = append(names, pod.Name)
			if pod.ManagedFields != nil {
				return fmt.Errorf("%s has managed fields", pod.Name)
			}
		}
		if got := strings.Join(names, " "); got != strings.Join(want, " ") {
			return fmt.Errorf("the mirror has %q, want %q", got, want)
		}
		return nil
	})
}

func TestMirror_FollowsEvents(t *testing.T) {
	t.Parallel()
	s := &apiServer{watch: sendEvents(true, eventOf("ADDED", "c", 11), `{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12"}}}`,
		eventOf("DELETED", "a", 13), eventOf("MODIFIED", "b", 14))}
	s.set(10, "b", "a")
	m := newMirror(t, startAPIServer(t, s))
	if !m.FreshAt().IsZero() {
		t.Error("a mirror is fresh before its first list")
	}
	if err := m.WaitUntilListed(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitForNames(t, m, "b", "c")
	waitUntil(t, time.Second, func() error {
		if pod, ok := m.Get("b"); !ok || pod.ResourceVersion != "14" {
			return fmt.Errorf("b is %v", pod)
		}
		return nil
	})
	if _, ok := m.Get("a"); ok {
		t.Error("a deleted pod is there")
	}
	if lists := s.lists.Load(); lists != 2 {
		t.Errorf("%d requests for two pages", lists)
	}
}

// Rules 32 and 44: after the end of a watch, of whatever kind, the mirror lists again, and not thousands of times.
func TestMirror_PausesAfterEachEndOfAWatch(t *testing.T) {
	t.Parallel()
	for name, watch := range map[string]func(http.ResponseWriter, *http.Request){
		"gone":            sendEvents(false, errorEvent(410, "Expired", "too old resource version: 6521 (6759)")),
		"too new":         sendEvents(false, errorEvent(504, "Timeout", "Timeout: Too large resource version: 318, current: 1")),
		"no progress":     sendEvents(false, errorEvent(500, "InternalError", "the required storage feature RequestWatchProgress is disabled")),
		"connection lost": sendEvents(false, errorEvent(500, "InternalError", "unable to decode an event from the watch stream: http2: client connection lost")),
		"closed":          sendEvents(false),
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			panic(http.ErrAbortHandler)
		},
		"not an event": sendEvents(false, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":7}}}`, "<html>"),
		"refused":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &apiServer{watch: watch}
			s.set(10, "a")
			m := newMirror(t, startAPIServer(t, s))
			waitForNames(t, m, "a")
			s.set(20, "b")
			waitForNames(t, m, "b")
			watches := s.watches.Load()
			time.Sleep(time.Second)
			if s.watches.Load() == watches {
				waitUntil(t, 4*time.Second, func() error {
					if s.watches.Load() == watches {
						return fmt.Errorf("the mirror does not go on")
					}
					return nil
				})
			}
			if watches := s.watches.Load(); watches > 12 {
				t.Errorf("%d watches", watches)
			}
		})
	}
}

// Rules 33 and 42: an open watch proves nothing. A mirror says since when it is not known to be complete, a connection
// without answers is replaced, and a right that is taken away shows.
func TestMirror_OpenWatchIsNoProof(t *testing.T) {
	t.Parallel()
	var frozen, forbidden atomic.Bool
	s := &apiServer{}
	s.health = func(w http.ResponseWriter, r *http.Request) {
		switch {
		case frozen.Load():
			<-r.Context().Done()
		case forbidden.Load():
			http.Error(w, `{"kind":"Status","code":403,"message":"pods is forbidden: User \"u\" cannot list resource \"pods\" in API group \"\" in the namespace \"n\""}`,
				http.StatusForbidden)
		default:
			s.serveList(w, r)
		}
	}
	s.set(10, "a")
	c := startAPIServer(t, s)
	c.SetHealthTimes(50*time.Millisecond, 200*time.Millisecond)
	m := newMirror(t, c)
	waitForNames(t, m, "a")
	waitUntil(t, 5*time.Second, func() error {
		if age := time.Since(m.FreshAt()); age > 100*time.Millisecond || m.Err() != nil || s.checks.Load() < 5 {
			return fmt.Errorf("the mirror is %v old: %w", age, m.Err())
		}
		return nil
	})
	if s.lists.Load() != 1 {
		t.Errorf("%d lists while nothing changes", s.lists.Load())
	}
	frozen.Store(true)
	waitUntil(t, 5*time.Second, func() error {
		if kubeclient.MeaningOf(m.Err()) != kubeclient.TimedOut {
			return fmt.Errorf("the mirror's error is %w", m.Err())
		}
		return nil
	})
	if !kubeclient.IsAway(m.Err()) || time.Since(m.FreshAt()) < 200*time.Millisecond {
		t.Errorf("the mirror is fresh since %v", time.Since(m.FreshAt()))
	}
	waitUntil(t, 5*time.Second, func() error {
		if s.watches.Load() < 2 {
			return fmt.Errorf("there is no new connection")
		}
		return nil
	})
	waitForNames(t, m, "a")
	frozen.Store(false)
	waitUntil(t, 5*time.Second, func() error { return m.Err() })

	forbidden.Store(true)
	waitUntil(t, 5*time.Second, func() error {
		if kubeclient.MeaningOf(m.Err()) != kubeclient.NoRight {
			return fmt.Errorf("the mirror's error is %w", m.Err())
		}
		return nil
	})
}

// A cluster without the resource, or an account without the right, is not asked every few seconds.
func TestMirror_RefusedListIsRare(t *testing.T) {
	t.Parallel()
	s := &apiServer{}
	s.list = func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"kind":"Status","code":404,"message":"the server could not find the requested resource"}`, http.StatusNotFound)
	}
	m := newMirror(t, startAPIServer(t, s))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := m.WaitUntilListed(ctx); kubeclient.MeaningOf(err) != kubeclient.NotServed {
		t.Errorf("the wait for a list that is refused: %v", err)
	}
	if s.lists.Load() != 1 {
		t.Errorf("%d lists", s.lists.Load())
	}
}

// Without anything of ours, the API server is asked for its health twice a minute; with the first pod, at once.
func TestMirror_IdleClientAsksRarely(t *testing.T) {
	t.Parallel()
	create := make(chan bool)
	s := &apiServer{watch: func(w http.ResponseWriter, r *http.Request) {
		sendEvents(false)(w, r)
		<-create
		sendEvents(true, eventOf("ADDED", "a", 11))(w, r)
	}}
	m := newMirror(t, startAPIServer(t, s))
	waitForNames(t, m)
	if err := m.WaitUntilListed(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if s.checks.Load() != 1 || s.lists.Load() != 1 || s.watches.Load() != 1 {
		t.Errorf("%d questions, %d lists, %d watches", s.checks.Load(), s.lists.Load(), s.watches.Load())
	}
	close(create)
	waitUntil(t, 2*time.Second, func() error {
		if s.checks.Load() < 2 {
			return fmt.Errorf("the API server is not asked")
		}
		return nil
	})
}
