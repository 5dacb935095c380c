package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestServerOptions_HelpHidesToken(t *testing.T) {
	t.Setenv("DSTACK_SERVER_ADMIN_TOKEN", "canary-token-0123456789-0123456789")
	t.Setenv("DSTACK_SERVER_DIR", t.TempDir())
	var help bytes.Buffer
	c := newCommand()
	c.SetOut(&help)
	c.SetErr(&help)
	c.SetArgs([]string{"server", "--help"})
	if err := c.Execute(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(help.String(), "--token") || strings.Contains(help.String(), "canary") {
		t.Errorf("help:\n%s", help.String())
	}
	var o serverOptions
	o.host, o.logLevel = "127.0.0.1", "INFO"
	if err := o.readEnvironment(); err != nil || o.token != "canary-token-0123456789-0123456789" {
		t.Errorf("token %q, %v", o.token, err)
	}
}
