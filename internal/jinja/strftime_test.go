package jinja

import (
	"strings"
	"testing"
)

// Every conversion of strftime is as in Python, with every flag.
func TestStrftimeIsPythons(t *testing.T) {
	p := oracle(t)
	var b strings.Builder
	for _, c := range "aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%" {
		if c == 's' {
			continue // depends on the zone of the machine
		}
		for _, flag := range []string{"", "-", "_", "0", "^", "#"} {
			if c == 'f' && flag != "" || strings.ContainsRune("cDFrRTxXzZ%nt", c) && flag != "" {
				continue // Python writes microseconds itself; nobody pads what is a word already
			}
			b.WriteString("%" + flag + string(c) + "|")
		}
	}
	template := "{{ strftime_now('" + b.String() + " q %') }}"
	out, err := render(t, template, `{}`)
	if problem := differs(p.ask(t, question{Template: template, Vars: []byte(`{}`)}).expected, out, err); problem != "" {
		t.Error(problem)
	}
}
