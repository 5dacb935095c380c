package jinja

import (
	"bufio"
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// python is a running testdata/oracle.py.
type python struct {
	in  io.WriteCloser
	out *bufio.Reader
}

type question struct {
	Template string          `json:"template"`
	Vars     json.RawMessage `json:"vars"`
	Repeat   int             `json:"repeat,omitempty"`
}

type answer struct {
	expected
	Microseconds float64
}

func startOracle(t testing.TB) *python {
	t.Helper()
	if exec.Command("/usr/bin/python3", "-c", "import jinja2").Run() != nil {
		t.Skip("needs jinja: /usr/bin/python3 cannot import jinja2 (apt-get install python3-jinja2)")
	}
	cmd := exec.Command("/usr/bin/python3", filepath.Join("testdata", "oracle.py"))
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
		in.Close()
		cmd.Wait()
	})
	return &python{in, bufio.NewReaderSize(out, 1<<20)}
}

func (p *python) render(t testing.TB, q question) answer {
	t.Helper()
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	reply, err := p.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(reply, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// renderTemplate compiles and renders a template.
func renderTemplate(t testing.TB, template, vars string) (string, error) {
	t.Helper()
	c, err := Compile(template, Limits{})
	if err != nil {
		return "", err
	}
	return c.Render(t.Context(), conversation{json: []byte(vars)}.vars(t), noon)
}

// hasAddress reports whether s contains the address of a Python object, which
// differs from run to run.
func hasAddress(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, "0x7f") || strings.Contains(s, "f7x0") || strings.Contains(s, "at 0")
}

func measureMicroseconds(f func()) float64 {
	began := time.Now()
	f()
	return float64(time.Since(began)) / float64(time.Microsecond)
}
