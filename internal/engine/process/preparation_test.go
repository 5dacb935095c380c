package process_test

import (
	"net"
	"strings"
	"testing"

	"dstack/internal/dstack"
)

// A port that was somebody's end of a connection is held for a minute after
// that, though nobody listens.
func TestStart_PortHeldByAConnection(t *testing.T) {
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
	o := order("sleep 60")
	o.Port = conn.LocalAddr().(*net.TCPAddr).Port
	r := ended(t, at(t, t.TempDir()), o)
	if r.State != dstack.AttemptRefused || r.Permanent || !strings.Contains(r.Error, "held by a connection") {
		t.Errorf("%+v", r)
	}
}
