package process_test

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
	"dstack/internal/engine/process"
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
	process.SetHeldPortTimeout(t, time.Second)
	spec := newSpec("sleep 60")
	spec.Port = conn.LocalAddr().(*net.TCPAddr).Port
	r := enginetest.RunToEnd(t, openClean(t, t.TempDir()), spec)
	if r.State != dstack.AttemptRefused || r.Permanent || !strings.Contains(r.Error, "held by a connection") {
		t.Errorf("%+v", r)
	}
}

// A process that listens on another address of the machine has the port, too: waiting does
// not help.
func TestStart_PortOfListenerOnAnotherAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux lists the sockets, and has all of 127.0.0.0/8")
	}
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	process.SetHeldPortTimeout(t, time.Second)
	spec := newSpec("sleep 60")
	spec.Port = l.Addr().(*net.TCPAddr).Port
	r := enginetest.RunToEnd(t, openClean(t, t.TempDir()), spec)
	if r.State != dstack.AttemptRefused || !r.Permanent || !strings.Contains(r.Error, "already in use") {
		t.Errorf("%+v", r)
	}
}

// An attempt waits for a port that a connection holds, and says so.
func TestStart_WaitsForHeldPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// A port that the system chooses may have connections of other programs, too.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: enginetest.FindFreePort(t)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	e := openClean(t, t.TempDir())
	spec := newSpec("sleep 60")
	spec.Port = conn.LocalAddr().(*net.TCPAddr).Port
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("port %d of this machine is still held by a connection; waiting for its end", spec.Port)
	enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool {
		return r.State == dstack.AttemptStarting && strings.HasPrefix(r.Progress, want)
	})
	_ = conn.(*net.TCPConn).SetLinger(0) // a reset leaves no closed connection behind
	_ = conn.Close()
	enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptRunning })
}
