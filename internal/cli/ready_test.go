package cli

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"dstack/internal/api"
)

func TestPrintReady(t *testing.T) {
	const byName, byPath = "http://web.localhost:3000/", "http://127.0.0.1:3000/proxy/services/main/web/"
	const token = `-H "Authorization: Bearer $DSTACK_TOKEN"`
	for _, c := range []struct {
		name      string
		view      api.RunView
		addresses []string
		call      string
	}{
		{"by name and by path", api.RunView{URL: byName, PathURL: byPath, Auth: true},
			[]string{"service  " + byName, "     or  " + byPath}, "curl " + byName + " " + token},
		{"by path alone", api.RunView{URL: byPath, PathURL: byPath, Auth: true}, []string{"service  " + byPath}, "curl " + byPath + " " + token},
		{"public", api.RunView{URL: byPath, PathURL: byPath}, []string{"service  " + byPath}, "curl " + byPath},
		{"a model of a public service asks for a token, too",
			api.RunView{URL: byName, PathURL: byPath, Model: &api.ModelView{Name: "it's a model", BaseURL: "http://127.0.0.1:3000/v1"}},
			[]string{"service  " + byName, "     or  " + byPath, "model    it's a model at http://127.0.0.1:3000/v1"},
			"curl http://127.0.0.1:3000/v1/chat/completions " + token + " -H 'Content-Type: application/json'" +
				` -d '{"model": "it'\''s a model", "messages": [{"role": "user", "content": "Hi"}]}'`},
		{"a server without base_url",
			api.RunView{URL: byPath, PathURL: byPath, Model: &api.ModelView{Name: "m", URL: "http://a"}},
			[]string{"service  " + byPath, "model    m at http://a/v1"},
			"curl http://a/v1/chat/completions " + token + " -H 'Content-Type: application/json'" +
				` -d '{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'`},
	} {
		c.view.Name, c.view.Status = "web", api.StatusReady
		var out, errOut bytes.Buffer
		a := &app{screen: newScreen(strings.NewReader(""), &out, &errOut)}
		a.printReady(c.view, 0)
		if got := splitTrimmed(out.String()); !slices.Equal(got, splitTrimmed(strings.Join(c.addresses, "\n"))) {
			t.Errorf("%s: addresses %q", c.name, got)
		}
		_, command, _ := strings.Cut(errOut.String(), "curl ")
		if got, want := shellWords(t, "curl "+command), shellWords(t, c.call); got != want {
			t.Errorf("%s: the call is\n%s\nwant\n%s", c.name, got, want)
		}
	}
}

func splitTrimmed(text string) (lines []string) {
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// shellWords returns the arguments of a command as a shell understands it.
func shellWords(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", "curl() { printf '[%s]' \"$@\"; }\n"+command)
	cmd.Env = []string{"DSTACK_TOKEN=t", "PATH=/bin:/usr/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}
