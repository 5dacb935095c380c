package sdnotify_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"dstack/internal/loop"
	"dstack/internal/sdnotify"
)

// listenAsSupervisor sets NOTIFY_SOCKET and returns a function that reads the next message.
func listenAsSupervisor(t *testing.T, name string) (read func() string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return func() string {
		t.Helper()
		text := make([]byte, 4096)
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
}

func TestSupervisor_Notify(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@dstack-test-" + strconv.Itoa(os.Getpid())} {
		read := listenAsSupervisor(t, name)
		if err := sdnotify.FromEnvironment().Notify(sdnotify.Ready, sdnotify.MainPID(7), sdnotify.Status("two\nlines")); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != "READY=1\nMAINPID=7\nSTATUS=two lines" {
			t.Errorf("%s: the message is %q", name, got)
		}
		if err := sdnotify.FromEnvironment().Notify(sdnotify.Reloading()); err != nil {
			t.Fatal(err)
		}
		if got := read(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9]\d*$`).MatchString(got) {
			t.Errorf("%s: the message is %q", name, got)
		}
	}
}

func TestSupervisor_Absent(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := sdnotify.FromEnvironment().Notify(sdnotify.Ready); err != nil {
		t.Errorf("without a supervisor: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := sdnotify.FromEnvironment().Notify(sdnotify.Ready); err == nil {
		t.Error("the socket does not exist, and there is no error")
	}
}

func TestSupervisor_Watchdog(t *testing.T) {
	read := listenAsSupervisor(t, filepath.Join(t.TempDir(), "notify"))
	for _, c := range []struct {
		name, usec, pid string
		tasks           int
	}{
		{"no watchdog", "", "", 0},
		{"no number", "soon", "", 0},
		{"of another process", "30000", "1", 0},
		{"of this process", "30000", strconv.Itoa(os.Getpid()), 1},
		{"of any process", "30000", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", c.usec)
			t.Setenv("WATCHDOG_PID", c.pid)
			tasks := sdnotify.FromEnvironment().Tasks()
			if len(tasks) != c.tasks {
				t.Fatalf("there are %d tasks", len(tasks))
			}
			if c.tasks == 0 {
				return
			}
			go func() { _ = loop.Run(t.Context(), tasks...) }()
			for range 2 {
				if got := read(); got != "WATCHDOG=1" {
					t.Errorf("the message is %q", got)
				}
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	kept := sdnotify.Environment([]string{"NOTIFY_SOCKET=/run/s", "WATCHDOG_PID=7", "WATCHDOG_USEC=1", "HOME=/"})
	if !slices.Equal(kept, []string{"NOTIFY_SOCKET=/run/s", "WATCHDOG_USEC=1", "HOME=/"}) {
		t.Errorf("the environment is %v", kept)
	}
}
