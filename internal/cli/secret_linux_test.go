package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dstack/internal/api"
)

// The prompt shows nothing of what is typed.
func TestTerminal_SecretIsNotEchoed(t *testing.T) {
	f := newFakeServer(t)
	f.secrets.result = api.SetSecretResult{Created: true, Changed: true}
	u := newTestUser(t, f)
	code, saw := runOnTerminal(t, u, "value of A: ", "canary\n", "secret", "set", "A")
	if code != ExitDone || strings.Contains(saw, "canary") || len(f.secrets.set) != 1 || f.secrets.set[0].Value != "canary" {
		t.Errorf("exit status %d, sent %+v\n%s", code, f.secrets.set, saw)
	}
}

// An interrupt at the prompt ends the command and switches the echo on again.
func TestTerminal_InterruptedSecretRestoresTheEcho(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	near, far := openTerminal(t)
	ctx, press := context.WithCancelCause(t.Context())
	hasEcho := func() bool {
		state, err := unix.IoctlGetTermios(int(far.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	u.ctx, u.in = ctx, near
	ended := make(chan int, 1)
	go func() { ended <- u.run("secret", "set", "A").code }()
	for deadline := time.Now().Add(10 * time.Second); hasEcho(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the echo was never switched off")
		}
	}
	press(errInterrupted)
	if code := <-ended; code != ExitFailed || !hasEcho() || len(f.secrets.set) > 0 {
		t.Errorf("exit status %d, echo %v, sent %+v", code, hasEcho(), f.secrets.set)
	}
	if _, err := far.WriteString("\n"); err != nil { // ends the read that is left
		t.Fatal(err)
	}
}
