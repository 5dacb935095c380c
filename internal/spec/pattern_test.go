package spec

import "testing"

// Patterns are compiled when they are first used; all of them must compile.
func TestPatterns_Compile(t *testing.T) {
	if len(allPatterns) < 20 {
		t.Errorf("there are only %d patterns", len(allPatterns))
	}
	for _, p := range allPatterns {
		if got := p.compile().String(); got != p.String() {
			t.Errorf("%s is compiled as %s", p, got)
		}
	}
}
