package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestServerReference checks that docs/reference/server.md lists every variable and flag of the server, and every type
// of backend, and gateway-serve.md those of `dstack gateway serve`.
func TestServerReference(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/server.md")
	if err != nil {
		t.Fatal(err)
	}
	serve, err := os.ReadFile("../../docs/reference/gateway-serve.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text) + string(serve)
	expect := func(what, quoted string) {
		if !strings.Contains(page, quoted) {
			t.Errorf("the page does not mention %s %s", what, quoted)
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	variable := regexp.MustCompile(`"(DSTACK_[A-Z_]+|HF_[A-Z_]+)"`)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range variable.FindAllStringSubmatch(string(source), -1) {
			expect("the variable", "`"+match[1]+"`")
		}
	}
	gatewayServeCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(string(serve), "`--"+f.Name) {
			t.Errorf("gateway-serve.md does not mention the flag --%s", f.Name)
		}
	})
	serverCommand().Flags().VisitAll(func(f *pflag.Flag) { expect("the flag", "`--"+f.Name+"`") })
	for name := range backendTypes {
		expect("the backend", "### "+name)
	}
}
