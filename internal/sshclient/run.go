package sshclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"dstack/internal/dstack"
)

// Run runs a command of POSIX sh, and returns once it has ended. A command that fails is no error: look at ExitCode. The
// error is of kind Unavailable if the connection is lost meanwhile; the command may have run. When ctx ends, Run kills the
// command, as well as SSH allows, and returns at once. A nil stdin is empty; Close waits for a Read of stdin.
func (c *Client) Run(ctx context.Context, text string, stdin io.Reader) (Output, error) {
	p, err := c.startCommand(ctx, text, maxSessions)
	if err != nil {
		return Output{}, err
	}
	var stdout bytes.Buffer
	var readErr error
	hasRead, hasReadErrors := make(chan struct{}), make(chan struct{})
	isRunning := p.link.tasks.start(func() {
		defer close(hasRead)
		_, readErr = io.Copy(&stdout, io.LimitReader(p.stdout, maxStdout+1))
	}) && p.link.tasks.start(func() {
		defer close(hasReadErrors)
		_, _ = io.Copy(&p.stderr, p.channel.Stderr())
	}) && p.link.tasks.start(func() {
		if stdin != nil {
			_, _ = io.Copy(p.channel, stdin) // a command may end before it has read everything
		}
		_ = p.channel.CloseWrite()
	})
	if !isRunning {
		return Output{}, p.link.lost(nil)
	}
	select {
	case <-hasRead:
	case <-ctx.Done():
		p.link.tasks.start(p.kill)
		return Output{}, stopped(ctx, c.name(), nil)
	}
	if stdout.Len() > maxStdout {
		p.link.tasks.start(p.kill)
		return Output{}, stepFailure(dstack.TooLarge, dstack.HostStepShell, nil,
			fmt.Sprintf("a command on %s printed more than %d MiB", c.name(), maxStdout>>20), "")
	}
	if errors.Is(readErr, errNoMarker) && !p.hasEndedWithin(c.times.exit) {
		p.link.tasks.start(p.kill)
		return Output{}, p.explainNoMarker(readErr, nil)
	}
	for _, wait := range []chan struct{}{hasReadErrors, p.ended} {
		select {
		case <-wait:
		case <-ctx.Done():
			p.link.tasks.start(p.kill)
			return Output{}, stopped(ctx, c.name(), nil)
		}
	}
	_ = p.channel.Close()
	if err := p.explainMissing(readErr); err != nil {
		return Output{}, err
	}
	return Output{Stdout: stdout.Bytes(), Stderr: []byte(p.stderr.String()), ExitCode: p.exitCode, Signal: p.signal,
		Noise: p.stdout.noise()}, nil
}

// explainMissing returns the error for a command that has ended without a status, or never begun; nil for others.
func (p *command) explainMissing(readErr error) error {
	switch {
	case !p.hasStatus && p.link.isLost():
		return p.link.lost(io.ErrUnexpectedEOF)
	case errors.Is(readErr, errNoMarker):
		return p.explainNoMarker(readErr, &ExitError{ExitCode: p.exitCode, Signal: p.signal})
	case !p.hasStatus:
		return stepFailure(dstack.Unavailable, dstack.HostStepShell, nil, fmt.Sprintf("the SSH server of %s ended a command "+
			"without a status", p.client.name()), "")
	default:
		return nil
	}
}

// explainNoMarker returns the error for a login shell that does not run the command. exit is nil if it still runs.
func (p *command) explainNoMarker(readErr error, exit *ExitError) error {
	said := strings.TrimSpace(p.stdout.noise() + "\n" + p.stderr.String())
	if said == "" && exit != nil {
		said = exit.Error()
	}
	return stepFailure(dstack.Unsupported, dstack.HostStepShell, readErr, fmt.Sprintf("the login shell of %s on %s does not run "+
		"commands; it says: %s", p.client.options.Login.User, p.client.name(), cutText(said)),
		"give the user a shell such as /bin/bash there, and remove ForceCommand")
}

// cutText returns the beginning of a text for a message.
func cutText(text string) string {
	const most = 300
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " …"
}

// Pipe runs a command of POSIX sh and returns a connection to its standard input and output. What the login shell prints
// before is left out. If the command fails, Read returns an error with an *ExitError in its chain. CloseWrite ends its input.
// Close kills a command that does not end with its input.
func (c *Client) Pipe(ctx context.Context, text string) (net.Conn, error) {
	p, err := c.startCommand(ctx, text, maxPipes)
	if err != nil {
		return nil, err
	}
	hasReadErrors := make(chan struct{})
	isStarted := p.link.tasks.start(func() {
		defer close(hasReadErrors)
		_, _ = io.Copy(&p.stderr, p.channel.Stderr())
	})
	if !isStarted {
		return nil, p.link.lost(nil)
	}
	conn := newChannelConn(p.link, p.channel, p.stdout)
	conn.explainEnd = func(err error) error {
		if p.hasEndedWithin(c.times.exit) {
			<-hasReadErrors
		}
		return p.explainPipeEnd(err)
	}
	conn.end = func() {
		conn.endWrites()
		if !p.hasEndedWithin(c.times.exit) {
			p.kill()
		}
		_ = p.channel.Close()
	}
	conn.start()
	return conn, nil
}

// explainPipeEnd returns what Read returns at the end of a command's output.
func (p *command) explainPipeEnd(err error) error {
	if !isClosed(p.ended) && errors.Is(err, errNoMarker) {
		return p.explainNoMarker(err, nil)
	}
	if !isClosed(p.ended) { // it has closed its output and runs on
		return err
	}
	if missing := p.explainMissing(err); missing != nil {
		return missing
	}
	if p.exitCode == 0 && p.signal == "" {
		return err
	}
	exit := &ExitError{ExitCode: p.exitCode, Signal: p.signal, Stderr: strings.TrimSpace(p.stderr.String())}
	message := fmt.Sprintf("%q failed on %s (%v)", p.text, p.client.name(), exit)
	if exit.Stderr != "" {
		message += ": " + cutText(exit.Stderr)
	}
	return stepFailure(dstack.Unavailable, "", exit, message, "")
}
