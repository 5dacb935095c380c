package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/installationca"
	"dstack/internal/server/logs"
)

// testServer is one of several servers of an installation.
type testServer struct {
	id        dstack.ServerID
	http      *httptest.Server
	directory *Directory
	output    *logs.Store
	reader    *Logs
	endpoint  string       // the only address at which a replica listens on its machine
	writer    atomic.Value // a dstack.ServerID: the server that copies the output of every attempt
}

// testServers is a Register with servers that answer.
type testServers struct {
	fakeRegister
	mu  sync.Mutex
	all []dstack.Server
}

func (s *testServers) ListServers(context.Context) ([]dstack.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all), nil
}

// end makes a server one that does not run any more.
func (s *testServers) end(t *testing.T, gone *testServer, others ...*testServer) {
	t.Helper()
	s.mu.Lock()
	for i := range s.all {
		s.all[i].IsEnded = s.all[i].IsEnded || s.all[i].ID == gone.id
	}
	s.mu.Unlock()
	for _, o := range others {
		if err := o.directory.membership.readServers(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	gone.http.CloseClientConnections()
}

// startServers starts servers of one installation.
func startServers(t *testing.T, ids ...dstack.ServerID) (*testServers, []*testServer) {
	// The race detector of Go 1.26 may report encoding/json itself when two goroutines use a type for the first time.
	if err := json.Unmarshal([]byte("{}"), &logState{}); err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(logsRequest{}); err != nil {
		t.Fatal(err)
	}
	t.Helper()
	register := &testServers{}
	authority, err := installationca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	config, err := installationca.ClientConfig(authority.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	var servers []*testServer
	for _, id := range ids {
		s := &testServer{id: id, output: logs.New(t.TempDir(), 1<<20)}
		s.writer.Store(dstack.ServerID(""))
		var handler *Handler
		s.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
		s.http.TLS = authority.ServerConfig()
		s.http.StartTLS()
		t.Cleanup(s.http.Close)
		self := dstack.Server{ID: id, Process: "1", Name: "box-" + string(id), URL: s.http.URL}
		register.all = append(register.all, self)
		m := New(Options{Register: register, Self: self})
		s.directory = NewDirectory(m, config, []byte("secret of the installation"), nil)
		t.Cleanup(s.directory.Close)
		handler = NewHandler(s.directory, s.output, func(_ context.Context, address string) (bool, error) { return address == s.endpoint, nil })
		s.reader = NewLogs(s.output, s.directory, func(context.Context, dstack.AttemptID) (dstack.ServerID, error) {
			return s.writer.Load().(dstack.ServerID), nil
		})
		servers = append(servers, s)
	}
	for _, s := range servers {
		if err := s.directory.membership.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// The race detector of Go 1.26 may also report crypto/tls where two connections verify one certificate for the first time.
	for _, s := range servers {
		for _, other := range register.all {
			if err := s.directory.Check(t.Context(), other); err != nil {
				t.Fatal(err)
			}
		}
	}
	return register, servers
}

// A replica on the machine of another server is reached through that server; nothing else there is.
func TestDialMachine(t *testing.T) {
	_, servers := startServers(t, "a", "b")
	replica, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	go func() {
		for {
			conn, err := replica.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				_, _ = conn.Write(bytes.ToUpper(text))
			}()
		}
	}()
	a, b := servers[0].directory, servers[1]
	if _, err := a.DialMachine(t.Context(), "b", replica.Addr().String()); err == nil || !strings.Contains(err.Error(), "no replica on this machine listens there") {
		t.Errorf("an address that is no replica's: %v", err)
	}
	b.endpoint = replica.Addr().String()
	conn, err := a.DialMachine(t.Context(), "b", b.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || string(text) != "HELLO" {
		t.Errorf("%q %v", text, err)
	}
	replica.Close()
	if _, err := a.DialMachine(t.Context(), "b", b.endpoint); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("a replica that is gone: %v", err)
	}
}

// Servers answer nobody but servers of their installation who mean them.
func TestHandler_RefusesStrangers(t *testing.T) {
	register, servers := startServers(t, "a", "b")
	_, strangers := startServers(t, "b")
	a, b, stranger := servers[0], servers[1], strangers[0]
	if err := a.directory.Check(t.Context(), register.all[1]); err != nil {
		t.Errorf("a server of the installation: %v", err)
	}
	for name, c := range map[string]struct{ url, words string }{
		"another server at the address":      {a.http.URL, "not the server that you mean"},
		"a server of another installation":   {stranger.http.URL, "not a server of this installation"},
		"nobody":                             {"https://127.0.0.1:1", "connection refused"},
		"a server that speaks http, not TLS": {strings.Replace(b.http.URL, "https", "http", 1), ""},
	} {
		err := a.directory.Check(t.Context(), dstack.Server{ID: "b", Name: "box-b", URL: c.url})
		if dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), "box-b (b)") {
			t.Errorf("%s: %v", name, err)
		}
	}
	answer := httptest.NewRecorder()
	plain := httptest.NewRequest(http.MethodPost, pathHello, nil)
	plain.Header.Set(tokenHeader, b.directory.tokenFor("b"))
	NewHandler(b.directory, b.output, nil).ServeHTTP(answer, plain)
	if answer.Code != http.StatusForbidden {
		t.Errorf("the right token without TLS: status %d", answer.Code)
	}
	register.end(t, b, a)
	for id, words := range map[dstack.ServerID]string{"b": "box-b (b) does not run", "x": "there is no server x"} {
		if _, err := a.directory.DialMachine(t.Context(), id, "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

var testKey = logs.Key{Project: "main", Run: "r", RunName: "web", Attempt: "attempt"}

// write appends lines first to last to the output on a server.
func (s *testServer) write(t *testing.T, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		line := dstack.LogLine{At: time.Unix(int64(n), 0).UTC(), Stream: "stdout", Text: fmt.Appendf(nil, "line %d\xff", n)}
		if err := s.output.Append(testKey, line); err != nil {
			t.Fatal(err)
		}
	}
}

// numbers returns the lines of a sequence as seconds.
func numbers(t *testing.T, lines func(func(dstack.LogLine, error) bool)) (found []int) {
	t.Helper()
	for line, err := range lines {
		if err != nil {
			t.Fatal(err)
		}
		n := int(line.At.Unix())
		if want := fmt.Sprintf("line %d\xff", n); string(line.Text) != want || line.Stream != "stdout" {
			t.Errorf("the line is %q", line.Text)
		}
		found = append(found, n)
	}
	return found
}

// The output of an attempt is read at the server that has most of it.
func TestLogs_ReadWhereMostIs(t *testing.T) {
	register, servers := startServers(t, "a", "b", "c")
	a, b, c := servers[0], servers[1], servers[2]
	a.writer.Store(dstack.ServerID("b"))
	a.write(t, 1, 2) // before b went on with the host
	b.write(t, 1, 5)
	c.write(t, 1, 3)
	if got := numbers(t, a.reader.Read(t.Context(), testKey, time.Time{}, time.Time{})); !slices.Equal(got, []int{1, 2, 3, 4, 5}) {
		t.Errorf("read %v", got)
	}
	if got := numbers(t, a.reader.Read(t.Context(), testKey, time.Unix(2, 0), time.Unix(5, 0))); !slices.Equal(got, []int{3, 4}) {
		t.Errorf("read a part: %v", got)
	}
	if start, found, err := a.reader.FindTail(t.Context(), testKey, time.Time{}, time.Time{}, 2); err != nil || found != 2 || start.Unix() != 3 {
		t.Errorf("the tail begins after %s, %d lines: %v", start, found, err)
	}
	register.end(t, b, a, c)
	if got := numbers(t, a.reader.Read(t.Context(), testKey, time.Time{}, time.Time{})); !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("without the server that had most: %v", got)
	}
	other := testKey
	other.Attempt = "unknown"
	for _, err := range a.reader.Read(t.Context(), other, time.Time{}, time.Time{}) {
		if err == nil || !strings.Contains(err.Error(), "box-b (b) does not run") {
			t.Errorf("output that only a server that is gone has: %v", err)
		}
	}
	a.writer.Store(dstack.ServerID("a"))
	if got := numbers(t, a.reader.Read(t.Context(), testKey, time.Time{}, time.Time{})); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("its own output: %v", got)
	}
}

// A follower goes on with another server, and gets each line once.
func TestLogs_FollowAcrossServers(t *testing.T) {
	register, servers := startServers(t, "a", "b", "c")
	a, b, c := servers[0], servers[1], servers[2]
	a.writer.Store(dstack.ServerID("b"))
	b.write(t, 1, 3)
	got := make(chan int, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for line, err := range a.reader.Follow(t.Context(), testKey, time.Time{}) {
			if err != nil {
				t.Error(err)
				return
			}
			got <- int(line.At.Unix())
		}
	}()
	expect := func(want ...int) {
		t.Helper()
		for _, n := range want {
			select {
			case line := <-got:
				if line != n {
					t.Fatalf("line %d, want %d", line, n)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("line %d does not come", n)
			}
		}
	}
	expect(1, 2, 3)
	b.write(t, 4, 4)
	expect(4)
	c.write(t, 1, 6) // c reads the output from the host again
	a.writer.Store(dstack.ServerID("c"))
	register.end(t, b, a, c)
	expect(5, 6)
	c.write(t, 7, 7)
	expect(7)
	c.output.Finish(testKey)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("it does not end with the output")
	}
}

// The output of a run that is deleted is deleted on all servers.
func TestLogs_RemoveElsewhere(t *testing.T) {
	_, servers := startServers(t, "a", "b")
	a, b := servers[0], servers[1]
	b.write(t, 1, 2)
	a.reader.RemoveElsewhere(t.Context(), "main", "web")
	if last := b.output.Last(testKey); !last.IsZero() {
		t.Errorf("the output until %s is left", last)
	}
}
