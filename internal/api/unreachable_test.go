package api

import (
	"strings"
	"testing"
)

// TestClient_UnreachableHint checks that the hint starts the server of the URL.
func TestClient_UnreachableHint(t *testing.T) {
	for url, want := range map[string]string{
		"http://127.0.0.1:3000": "start it with: dstack server",
		"http://localhost:3001": "start it with: dstack server --port 3001\n",
		"http://[::1]:8080":     "start it with: dstack server --port 8080\n",
		"http://127.0.0.1":      "start it with: dstack server --port 80\n",
		"https://d.example.com": "check that it runs",
		"http://10.0.0.2:3000":  "check that it runs",
	} {
		c, err := NewClient(url, "")
		if err != nil {
			t.Fatal(err)
		}
		got := c.unreachableHint()
		if exact := want == "start it with: dstack server"; exact && got != want || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", url, got)
		}
	}
}
