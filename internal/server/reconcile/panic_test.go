package reconcile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"dstack/internal/server/store"
)

func panicInStep() error { panic("out of range") }

func TestRecoverPanic_KeepsTheStack(t *testing.T) {
	err := recoverPanic(panicInStep)
	p, ok := errors.AsType[*panicError](err)
	if !ok || err.Error() != "panic: out of range" || !strings.Contains(string(p.stack), "panicInStep") {
		t.Errorf("got %+v", err)
	}
	failure := errors.New("no panic")
	if err := recoverPanic(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	if err := recoverPanic(func() error { return nil }); err != nil {
		t.Errorf("got %v", err)
	}
}

// Equal panics of one pass are logged once, with the stack of the first.
func TestReleaseFailed_LogsTheStackOnce(t *testing.T) {
	var log bytes.Buffer
	r := &Reconciler{Options: Options{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	var failures []stepFailure
	for _, id := range []string{"a", "b"} {
		f := stepFailure{store.Lease{Kind: store.Runs, ID: id}, recoverPanic(panicInStep)}
		failures = append(failures, f)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.logFailures(ctx, failures)
	if text := log.String(); strings.Count(text, "a step failed") != 1 || !strings.Contains(text, "panicInStep") {
		t.Error(text)
	}
	log.Reset()
	cancel()
	if r.logFailures(ctx, failures); log.Len() > 0 {
		t.Errorf("logged after the end: %s", log.String())
	}
}
