package jinja

import (
	"strings"
	"testing"
	"time"
)

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
