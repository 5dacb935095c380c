package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/listen"
)

func TestOpenListener_Errors(t *testing.T) {
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	for _, c := range []struct {
		name, address, message, hint string
		kind                         dstack.Kind
	}{
		{"a port in use", used.Addr().String(), "cannot listen on " + used.Addr().String() + ": address already in use",
			"another server may be running there; choose another port with --port", dstack.Conflict},
		{"an unknown host", "no host.invalid:3000", "cannot find the host no host.invalid",
			"use an address of this machine, such as 127.0.0.1", dstack.Invalid},
		{"an address of another machine", "192.0.2.1:3000", "cannot listen on 192.0.2.1:3000: ",
			"use an address of this machine, such as 127.0.0.1", dstack.Invalid},
		{"no port", "127.0.0.1", "cannot listen on 127.0.0.1: missing port in address",
			"write the host and the port, such as 127.0.0.1:9100", dstack.Invalid},
		{"an unknown port", "127.0.0.1:metrics9", "cannot listen on 127.0.0.1:metrics9: unknown port",
			"write the host and the port, such as 127.0.0.1:9100", dstack.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := openListener(t.Context(), &listen.Set{}, "server", c.address, "--port")
			if err == nil {
				l.Close()
				t.Fatal("the address was accepted")
			}
			e, ok := errors.AsType[*dstack.Error](err)
			if !ok || e.Kind != c.kind || !strings.HasPrefix(e.Message, c.message) || e.Hint != c.hint {
				t.Errorf("the error is %#v", err)
			}
		})
	}
}

func TestServerOptions_RejectsPorts(t *testing.T) {
	for _, text := range []string{"3456789", "65536", "0", "-1", "http"} {
		for _, source := range []string{"--port", "DSTACK_SERVER_PORT"} {
			t.Setenv("DSTACK_SERVER_DIR", filepath.Join(t.TempDir(), "server"))
			o := serverOptions{logLevel: "INFO"}
			if source == "--port" {
				o.portFlag = text
			} else {
				t.Setenv(source, text)
			}
			err := o.readEnvironment()
			e, ok := errors.AsType[*dstack.Error](err)
			if !ok || e.Kind != dstack.Invalid || e.Message != source+": `"+text+"` is not a port" ||
				e.Hint != "give a number from 1 to 65535" {
				t.Errorf("%s %s: %v", source, text, err)
			}
			if _, err := os.Stat(os.Getenv("DSTACK_SERVER_DIR")); err == nil {
				t.Errorf("%s %s: the server's folder was created", source, text)
			}
			os.Unsetenv("DSTACK_SERVER_PORT")
		}
	}
}
