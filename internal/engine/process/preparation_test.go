package process_test

import (
	"net"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
)

// A closed connection holds its port for a minute, although no process listens on it.
func TestStart_PortHeldByConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	spec := newSpec("sleep 60")
	spec.Port = conn.LocalAddr().(*net.TCPAddr).Port
	r := enginetest.RunToEnd(t, openClean(t, t.TempDir()), spec)
	if r.State != dstack.AttemptRefused || r.Permanent || !strings.Contains(r.Error, "held by a connection") {
		t.Errorf("%+v", r)
	}
}
