package gateway

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/openai"
)

// TestPadding_OutlivesPanics: what reads the client's body in the timer's goroutine
// must not end the process when it panics. A missing header, whose map cannot be
// written, stands in for a mistake in that code.
func TestPadding_OutlivesPanics(t *testing.T) {
	var log bytes.Buffer
	m := &modelCall{Call: openai.ParseCall("/v1/chat/completions"), request: &proxyRequest{id: "the-request",
		gateway: &Gateway{log: slog.New(slog.NewTextHandler(&log, nil))}}}
	m.body.scanner.Begin("application/json")
	m.body.scanner.Scan([]byte(`{"model":"m"}`))
	if !m.beginNewlines(http.Header{}) {
		t.Fatal("the client takes no newlines")
	}
	if m.beginNewlines(nil) {
		t.Error("there are newlines after a panic")
	}
	if !strings.Contains(log.String(), "panic while waiting") || !strings.Contains(log.String(), "the-request") {
		t.Errorf("the log is %q", log.String())
	}
}
