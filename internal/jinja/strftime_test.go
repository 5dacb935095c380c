package jinja

import (
	"strings"
	"testing"

	"dstack/internal/jinja/jinjatest"
)

// TestStrftimeAsInPython compares every conversion with every flag.
func TestStrftimeAsInPython(t *testing.T) {
	p := jinjatest.Start(t)
	var b strings.Builder
	for _, c := range "aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%" {
		if c == 's' {
			continue // depends on the time zone of the machine
		}
		for _, flag := range []string{"", "-", "_", "0", "^", "#"} {
			if c == 'f' && flag != "" || strings.ContainsRune("cDFrRTxXzZ%nt", c) && flag != "" {
				continue // flags have no meaning for these
			}
			b.WriteString("%" + flag + string(c) + "|")
		}
	}
	template := "{{ strftime_now('" + b.String() + " q %') }}"
	out, err := renderTemplate(t, template, `{}`)
	if problem := findDifference(p.Ask(t, jinjatest.Question{Template: template, Vars: []byte(`{}`)}), out, err); problem != "" {
		t.Error(problem)
	}
}
