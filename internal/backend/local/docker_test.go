package local

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// A Docker Engine that accepts connections and never answers must not block the start
// of the server.
func TestNew_HungDocker(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	defer func(before time.Duration) { dockerTimeout = before }(dockerTimeout)
	dockerTimeout = 50 * time.Millisecond
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := New(t.Context(), Options{Engine: "docker", Dir: t.TempDir(), Installation: "here", HostID: "abc"})
		done <- err
	}()
	select {
	case err := <-done:
		if dstack.KindOf(err) != dstack.Unavailable {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	case <-time.After(10 * time.Second):
		t.Error("New does not return")
	}
}
