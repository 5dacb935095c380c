package server

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// A first message that is wrong is the caller's fault, and says what is wrong with it.
func TestExec_RefusesBadRequests(t *testing.T) {
	h, _ := newExecTest(t, func(context.Context, dstack.AttemptSpec, engine.Command) (int, error) {
		t.Error("a command runs")
		return 0, nil
	})
	long, err := json.Marshal(api.ExecRequest{RunName: "web", Command: []string{"echo", strings.Repeat("x", 128<<10)}})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                   "the first message must be an ExecRequest",
		"{":                                  "the first message must be an ExecRequest",
		"[]":                                 "the first message must be an ExecRequest",
		`{"run_name": 5}`:                    "run_name",
		`{"run_name": "web", "shell": true}`: "shell",
		`{"run_name": "web", "command": ["\u0000"]}`:                                              "command.0: the text contains the character U+0000",
		`{"run_name": "web", "terminal": {"type": "a\u0000", "size": {"columns": 1, "rows": 1}}}`: "terminal.type: the text contains the character U+0000",
		`{"run_name": "web", "terminal": {"type": "a", "size": {"columns": -1, "rows": 1}}}`:      "columns",
		string(long): "argument 1 of the command has 131072 bytes, the limit is 131071",
	} {
		conn, _, err := websocket.Dial(t.Context(), strings.Replace(h.url, "http", "ws", 1)+"/api/project/main/runs/exec",
			&websocket.DialOptions{HTTPHeader: map[string][]string{"Authorization": {"Bearer " + h.admin}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		_, answer, err := conn.Read(t.Context())
		if err != nil {
			t.Fatalf("%.80s: %v", text, err)
		}
		var update api.ExecUpdate
		if err := json.Unmarshal(answer, &update); err != nil || update.Exit == nil || update.Exit.Error == nil {
			t.Fatalf("%.80s: %s, %v", text, answer, err)
		}
		if got := *update.Exit.Error; got.Kind != dstack.Invalid || !strings.Contains(got.Message, want) {
			t.Errorf("%.80s: %+v, want %q", text, got, want)
		}
		_ = conn.CloseNow()
	}
}
