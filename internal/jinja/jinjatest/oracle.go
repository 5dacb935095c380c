// Package jinjatest asks Hugging Face transformers what it makes of chat templates,
// for tests that compare.
package jinjatest

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
)

//go:embed oracle.py
var oracleSource string

// Oracle is a running oracle.py. It is not safe for concurrent use.
type Oracle struct {
	in  io.Writer
	out *bufio.Reader
}

// Question is one question to the oracle; see oracle.py.
type Question struct {
	Template string            `json:"template,omitempty"`
	Vars     json.RawMessage   `json:"vars,omitempty"`
	Chat     json.RawMessage   `json:"chat,omitempty"`
	Files    map[string]string `json:"files,omitempty"`
	Repeat   int               `json:"repeat,omitempty"`
}

// Answer is the answer to a question.
type Answer struct {
	OK           bool
	Output       string
	Tokens       map[string]string
	Kind         string // of an error: syntax, raise or runtime
	Error        string
	Microseconds float64
}

// Start starts an oracle that ends with the test. Without a Python that has
// transformers, it skips the test.
func Start(t testing.TB) *Oracle {
	t.Helper()
	python := os.Getenv("DSTACK_TEST_JINJA")
	if reason := os.Getenv("DSTACK_TEST_WITHOUT_JINJA"); reason != "" {
		t.Skip("needs jinja: " + reason)
	} else if python == "" {
		t.Skip("needs jinja: DSTACK_TEST_JINJA is not set: it is a Python with the packages of internal/jinja/jinjatest/requirements.txt")
	}
	cmd := exec.Command(python, "-c", oracleSource)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("oracle.py: %v", err)
		}
	})
	return &Oracle{in, bufio.NewReaderSize(out, 1<<20)}
}

// Ask returns the answer to a question.
func (o *Oracle) Ask(t testing.TB, q Question) (a Answer) {
	t.Helper()
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	reply, err := o.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(reply, &a); err != nil {
		t.Fatalf("%v: %s", err, reply)
	}
	return a
}
