package jinja

import (
	"strings"
	"testing"
)

// TestStrftimeAsInPython compares every conversion with every flag.
func TestStrftimeAsInPython(t *testing.T) {
	p := startOracle(t)
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
	if problem := findDifference(p.render(t, question{Template: template, Vars: []byte(`{}`)}).expected, out, err); problem != "" {
		t.Error(problem)
	}
}
