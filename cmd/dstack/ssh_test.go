package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dstack/internal/dstack"
)

func TestReadSSHPort(t *testing.T) {
	for text, want := range map[string]sshSetting{
		"": {}, "off": {isOff: true}, "OFF": {isOff: true}, "2222": {port: 2222}, "65535": {port: 65535},
	} {
		t.Setenv(sshPortVariable, text)
		o := serverOptions{port: 3000}
		if err := o.readSSHPort(); err != nil || o.ssh != want {
			t.Errorf("%q: %+v, %v", text, o.ssh, err)
		}
	}
	for _, text := range []string{"0", "-1", "65536", "ssh", "no", "3000", " 2222"} {
		t.Setenv(sshPortVariable, text)
		o := serverOptions{port: 3000}
		if err := o.readSSHPort(); dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), sshPortVariable) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// openTestListener opens the SSH listener of a server with a data folder, and closes it at the end of the test.
func openTestListener(t *testing.T, dir string, setting sshSetting) *daemon {
	t.Helper()
	d := &daemon{serverOptions: serverOptions{dir: dir, host: "127.0.0.1", port: 3000, ssh: setting}}
	if err := d.openSSHListener(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.sshListener != nil {
		t.Cleanup(func() { _ = d.sshListener.Close() })
	}
	return d
}

// TestOpenSSHListener_KeepsItsPort: a restarted server has the same port as before, unless it is in use.
func TestOpenSSHListener_KeepsItsPort(t *testing.T) {
	dir := t.TempDir()
	first := openTestListener(t, dir, sshSetting{})
	port := first.sshPort()
	if got := first.describeSSHListener(); got.Port != port || port == 0 || !got.IsLocal {
		t.Errorf("the listener is %+v", got)
	}
	if host, _, _ := net.SplitHostPort(first.sshListener.Addr().String()); host != "127.0.0.1" {
		t.Errorf("the server listens on %s", host)
	}
	_ = first.sshListener.Close()
	if again := openTestListener(t, dir, sshSetting{}); again.sshPort() != port {
		t.Errorf("the port was %d and is %d", port, again.sshPort())
	}
	moved := openTestListener(t, dir, sshSetting{}) // the one before still listens
	if moved.sshPort() == port || moved.sshPort() == 0 {
		t.Errorf("the port of two servers is %d", moved.sshPort())
	}
	file := filepath.Join(dir, "ssh-port")
	if text, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(moved.sshPort()) {
		t.Errorf("the file has %q, %v", text, err)
	}
	for _, text := range []string{"", "ssh", "0", "70000", "3000"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if d := openTestListener(t, dir, sshSetting{}); d.sshPort() == 0 || d.sshPort() == 3000 {
			t.Errorf("with %q in the file the port is %d", text, d.sshPort())
		}
	}
}

func TestOpenSSHListener_ChosenPort(t *testing.T) {
	dir := t.TempDir()
	used := openTestListener(t, dir, sshSetting{})
	d := &daemon{serverOptions: serverOptions{dir: dir, host: "127.0.0.1", port: 3000, ssh: sshSetting{port: used.sshPort()}}}
	err := d.openSSHListener(t.Context())
	e, ok := errors.AsType[*dstack.Error](err)
	if !ok || e.Kind != dstack.Conflict || !strings.Contains(e.Hint, sshPortVariable) {
		t.Errorf("a port in use ended with %v", err)
	}
	_ = used.sshListener.Close()
	if err := d.openSSHListener(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.sshListener.Close() }()
	if got := d.describeSSHListener(); got.Port != used.sshPort() || got.IsLocal { // the operator may forward it
		t.Errorf("the listener is %+v", got)
	}
}

func TestOpenSSHListener_Off(t *testing.T) {
	dir := t.TempDir()
	d := openTestListener(t, dir, sshSetting{isOff: true})
	if d.sshListener != nil || d.describeSSHListener().Port != 0 {
		t.Errorf("the listener is %+v", d.describeSSHListener())
	}
	if tasks, err := d.sshTasks(); len(tasks) != 0 || err != nil {
		t.Errorf("%d tasks, %v", len(tasks), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ssh-port")); err == nil {
		t.Error("a port was kept")
	}
}
