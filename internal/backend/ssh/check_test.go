package ssh

import (
	"strings"
	"testing"
)

// What a host prints may be long, and 100 bytes may end within a character.
func TestShortenLine(t *testing.T) {
	for text, want := range map[string]string{
		"permission denied":               "permission denied",
		strings.Repeat("x", 100):          strings.Repeat("x", 100),
		strings.Repeat("x", 101):          strings.Repeat("x", 100) + "…",
		strings.Repeat("x", 99) + "ü and": strings.Repeat("x", 99) + "…",
	} {
		if got := shortenLine(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
