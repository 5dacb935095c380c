package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
	"dstack/internal/server"
	"dstack/internal/sshserver"
)

// sshPortVariable names the port of the SSH server, or turns it off.
const sshPortVariable = "DSTACK_SERVER_SSH_PORT"

// sshSetting is what the setting of the SSH server's port says.
type sshSetting struct {
	isOff bool
	port  int // 0: any free one, kept across restarts
}

// readSSHPort reads the setting of the SSH server's port.
func (o *serverOptions) readSSHPort() error {
	text := os.Getenv(sshPortVariable)
	switch strings.ToLower(text) {
	case "":
		return nil
	case "off":
		o.ssh.isOff = true
		return nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return newInvalidError(fmt.Sprintf("%s: `%s` is not a port", sshPortVariable, text), "give a number from 1 to 65535, or off")
	}
	if o.ssh.port = int(port); o.ssh.port == o.port {
		return newInvalidError(fmt.Sprintf("%s: port %d is that of the server itself", sshPortVariable, port),
			"give another one, or leave it out for any free port")
	}
	return nil
}

// openSSHListener opens the listener of the SSH server at the server's address, unless it is off.
func (d *daemon) openSSHListener(ctx context.Context) (err error) {
	if d.ssh.isOff {
		return nil
	}
	if d.ssh.port != 0 {
		d.sshListener, err = openListener(ctx, &d.sockets, "ssh", net.JoinHostPort(d.host, strconv.Itoa(d.ssh.port)), sshPortVariable)
		return err
	}
	file := d.filePath("ssh-port")
	if kept := readKeptPort(file); kept != 0 && kept != d.port {
		if d.sshListener, err = openListener(ctx, &d.sockets, "ssh", net.JoinHostPort(d.host, strconv.Itoa(kept)), sshPortVariable); err == nil {
			return nil
		}
	}
	if d.sshListener, err = openListener(ctx, &d.sockets, "ssh", net.JoinHostPort(d.host, "0"), sshPortVariable); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(d.sshPort())+"\n"), 0o600); err != nil {
		return &dstack.Error{Kind: dstack.Unavailable, Cause: err,
			Message: fmt.Sprintf("cannot write %s: %s", file, human.DescribeFailure(err)), Hint: "check that the folder is yours"}
	}
	return nil
}

// readKeptPort returns the port in a file, and 0 if there is none.
func readKeptPort(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}

// sshPort returns the port of the SSH server, and 0 if there is none.
func (d *daemon) sshPort() int {
	if d.sshListener == nil {
		return 0
	}
	return d.sshListener.Addr().(*net.TCPAddr).Port
}

// describeSSHListener returns the SSH listener for the addresses that clients get. A port that the operator chose may be
// forwarded to this machine; a port that changes can not.
func (d *daemon) describeSSHListener() server.SSHListener {
	return server.SSHListener{Port: d.sshPort(), IsLocal: d.isLoopback() && d.ssh.port == 0}
}

// sshTasks returns the tasks that let clients attach to runs through SSH: none if that is off.
func (d *daemon) sshTasks() ([]loop.Task, error) {
	if d.sshListener == nil {
		return nil, nil
	}
	seed, err := d.sealer.DeriveKey("ssh host key")
	if err != nil {
		return nil, err
	}
	jobs := server.NewSSHJobs(d.server, d.dialer)
	ssh, err := sshserver.New(sshserver.Options{HostSeed: seed, Jobs: jobs, Log: d.log})
	if err != nil {
		return nil, err
	}
	attached, end := context.WithCancel(context.Background())
	listener := d.untilReplaced(attached, loop.Task{Name: "SSH listener", Run: func(ctx context.Context) error {
		defer end()
		return ssh.Serve(ctx, d.sshListener)
	}})
	return []loop.Task{d.untilReplaced(attached, jobs.LogsTask()), listener}, nil
}
