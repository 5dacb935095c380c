package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadToken has one case for each source of the admin's token.
func TestReadToken(t *testing.T) {
	const one, two = "one-0123456789-0123456789-0123456789", "two-0123456789-0123456789-0123456789"
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file, empty := write("file", two+"\r\n"), write("empty", "\n")
	for _, c := range []struct {
		name                           string
		flag, fileFlag, variable, path string
		want                           string // the token, or part of the error
	}{
		{"nothing", "", "", "", "", ""},
		{"the flag wins", one, "", two, file, one},
		{"the file's flag wins", "", file, one, empty, two},
		{"the variable", "", "", one, "", one},
		{"the variable of the file", "", "", "", file, two},
		{"both variables", "", "", one, file, "are both set"},
		{"both flags", one, file, "", "", "do not go together"},
		{"an empty file", "", empty, "", "", "--token-file: " + empty + " is empty"},
		{"a file of the environment that is missing", "", "", "", filepath.Join(dir, "none"), "DSTACK_SERVER_ADMIN_TOKEN_FILE: cannot read"},
		{"too short", "", "", "short", "", "DSTACK_SERVER_ADMIN_TOKEN has 5 characters"},
	} {
		t.Setenv(tokenVariable, c.variable)
		t.Setenv(tokenFileVariable, c.path)
		o := serverOptions{token: c.flag, tokenFile: c.fileFlag}
		err := o.readToken()
		if err == nil && o.token != c.want || err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q, %v; want %q", c.name, o.token, err, c.want)
		}
	}
}
