package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo terminal: near is the end of the
// program, far the end of the user.
func openTerminal(t *testing.T) (near, far *os.File) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("this test needs pseudo terminals: %v", err)
	}
	t.Cleanup(func() { far.Close() })
	raw := int(far.Fd())
	if err := unix.IoctlSetPointerInt(raw, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(raw, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	near, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if err := unix.IoctlSetWinsize(int(near.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// terminalUser reads a terminal, and types when a text appears.
type terminalUser struct {
	mu   sync.Mutex
	seen bytes.Buffer
	done chan struct{}
}

func watchTerminal(far *os.File, when, typed string) *terminalUser {
	p := &terminalUser{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		buf := make([]byte, 4096)
		for hasTyped := false; ; {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.seen.Write(buf[:n])
			if !hasTyped && strings.Contains(p.seen.String(), when) {
				hasTyped = true
				io.WriteString(far, typed)
			}
			p.mu.Unlock()
		}
	}()
	return p
}

func (p *terminalUser) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

func runOnTerminal(t *testing.T, u *testUser, when, typed string, args ...string) (int, string) {
	t.Helper()
	near, far := openTerminal(t)
	p := watchTerminal(far, when, typed)
	root := New(Options{Version: "1", In: near, Out: near, Err: near, Dir: u.dir, Home: u.home,
		Env: func(name string) (string, bool) { v, ok := u.env[name]; return v, ok }})
	root.SetArgs(args)
	code := Execute(u.ctx, root)
	near.Close()
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		t.Error("the terminal was not closed")
	}
	return code, p.output()
}

func TestTerminal_SubmitsOnYes(t *testing.T) {
	f, u := newApplyTest(t, startingView("pulling image"), readyView)
	code, saw := runOnTerminal(t, u, "[y/N]", "y\n", "apply", "-f", "service.dstack.yml", "--wait", "ready")
	if code != ExitDone || len(f.applied) != 1 || !strings.Contains(saw, "Submit web? [y/N] ") || !strings.Contains(saw, "\x1b[1m") {
		t.Errorf("exit status %d, applied %d times\n%s", code, len(f.applied), saw)
	}
}

func TestTerminal_SubmitsNothingOnNo(t *testing.T) {
	for _, answer := range []string{"n\n", "\n", "\x04"} {
		f, u := newApplyTest(t, readyView)
		code, saw := runOnTerminal(t, u, "[y/N]", answer, "apply", "-f", "service.dstack.yml")
		if code != ExitDone || len(f.applied) != 0 || !strings.Contains(saw, "nothing was submitted") {
			t.Errorf("%q: exit status %d, applied %d times\n%s", answer, code, len(f.applied), saw)
		}
	}
}

func TestTerminal_SubmitsNothingOnInterrupt(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	ctx, press := context.WithCancelCause(t.Context())
	defer time.AfterFunc(150*time.Millisecond, func() { press(errInterrupted) }).Stop()
	u.ctx = ctx
	code, saw := runOnTerminal(t, u, "never", "", "apply", "-f", "service.dstack.yml")
	if code != ExitFailed || len(f.applied) != 0 || !strings.Contains(saw, "interrupted") {
		t.Errorf("exit status %d, applied %d times\n%s", code, len(f.applied), saw)
	}
}

func TestTerminal_Colours(t *testing.T) {
	f := newFakeServer(t)
	f.list = runViews(readyView)
	for _, c := range []struct {
		args []string
		env  string
		want bool
	}{{nil, "", true}, {[]string{"--no-color"}, "", false}, {nil, "NO_COLOR", false}} {
		u := newTestUser(t, f)
		u.env[c.env] = "1"
		if code, saw := runOnTerminal(t, u, "never", "", append([]string{"ps"}, c.args...)...); code != 0 || strings.Contains(saw, "\x1b[") != c.want {
			t.Errorf("%+v: %d %q", c, code, saw)
		}
	}
}
