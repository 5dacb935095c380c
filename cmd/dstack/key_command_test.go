package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/dstack"
)

// TestImportKey takes over the key of another server, once or again, and nothing else.
func TestImportKey(t *testing.T) {
	newOptions := func() *serverOptions {
		dir := t.TempDir()
		return &serverOptions{dir: filepath.Join(dir, "server"), database: "sqlite://" + filepath.Join(dir, "new.db")}
	}
	first := newOptions()
	if err := os.MkdirAll(first.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := first.printKey(&bytes.Buffer{}); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("a server that has not started yet: %v", err)
	}
	key := "# of the first server\n" + strings.Repeat("QUFB", 10) + "QUE=\n"
	if err := os.WriteFile(first.filePath(keyName), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := first.printKey(&printed); err != nil || printed.String() != key {
		t.Fatalf("printed %q, %v", printed.String(), err)
	}
	second := newOptions()
	for range 2 {
		var out bytes.Buffer
		if err := second.importKey(t.Context(), "-", strings.NewReader(key), &out); err != nil || !strings.Contains(out.String(), "next: dstack server") {
			t.Errorf("%q %v", out.String(), err)
		}
		if text, err := os.ReadFile(second.filePath(keyName)); err != nil || string(text) != key {
			t.Errorf("the file has %q, %v", text, err)
		}
	}
	if info, err := os.Stat(second.filePath(keyName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	other := strings.Repeat("QkJC", 10) + "QkI=\n"
	for name, c := range map[string]struct {
		from, text string
		kind       dstack.Kind
		words      string
	}{
		"another key beside one":     {"-", other, dstack.Conflict, "is another key"},
		"what is no key":             {"-", "hello\n", dstack.Invalid, "standard input has no key of a dstack server"},
		"nothing":                    {"-", "", dstack.Invalid, "standard input has no key of a dstack server"},
		"a file that does not exist": {filepath.Join(second.dir, "none"), "", dstack.Invalid, "cannot read"},
	} {
		err := second.importKey(t.Context(), c.from, strings.NewReader(c.text), &bytes.Buffer{})
		if dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text, _ := os.ReadFile(second.filePath(keyName)); string(text) != key {
		t.Errorf("the key was replaced by %q", text)
	}
	if left, err := filepath.Glob(filepath.Join(second.dir, ".key-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// TestReadPeerURL has one case for each source of the address for other servers.
func TestReadPeerURL(t *testing.T) {
	const database = "postgres://u@127.0.0.1/db"
	for _, c := range []struct{ name, host, variable, want string }{
		{"the address that it listens on", "10.0.0.5", "", "https://10.0.0.5:3000"},
		{"this machine alone", "127.0.0.1", "", "https://127.0.0.1:3000"},
		{"all addresses", "0.0.0.0", "", "https://127.0.0.1:3000"},
		{"all addresses of IPv6", "::", "", "https://127.0.0.1:3000"},
		{"the variable", "127.0.0.1", "https://a.example.com:8443/", "https://a.example.com:8443"},
		{"without TLS", "", "http://a:3000", "is not the URL of a server"},
		{"without a port", "", "https://a", "is not the URL of a server"},
		{"with a path", "", "https://a:3000/x", "is not the URL of a server"},
	} {
		t.Setenv(peerURLVariable, c.variable)
		o := serverOptions{host: c.host, port: 3000, database: database}
		err := o.readPeerURL()
		got := o.peerURL
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}
