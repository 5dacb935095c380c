package docker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// A container whose files take long to delete must not delay the pass over the whole
// machine.
func TestRemove_SlowDocker(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Api-Version", "1.47")
		switch {
		case r.Method == http.MethodDelete:
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/info"):
			_, _ = fmt.Fprint(w, `{"OSType":"linux"}`)
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			_, _ = fmt.Fprint(w, `[{"Id":"c","State":"exited","Labels":{"dstack.attempt":"a"}}]`)
		}
	})}}
	s.Start()
	defer s.Close()
	defer func(previous time.Duration) { removeTimeout = previous }(removeTimeout)
	removeTimeout = 50 * time.Millisecond
	e, err := New(t.Context(), Options{Host: "unix://" + socket, Installation: "here"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := e.Remove(ctx, "a"); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("got %v", err)
	}
	if ctx.Err() != nil {
		t.Error("Remove waited for the whole time of its context")
	}
}
