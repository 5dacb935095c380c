package sshclient

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// Bounds of what is kept of a command's output.
const (
	maxStdout = 16 << 20
	maxStderr = 64 << 10 // the rest is left out
	maxNoise  = 4 << 10  // of the login shell; more of it is an error
)

// Output is what a command printed, and how it ended.
type Output struct {
	Stdout   []byte
	Stderr   []byte
	ExitCode int    // -1: a signal ended it
	Signal   string // such as KILL; empty: it exited
	Noise    string // what the login shell printed before the command's output; it is not in Stdout
}

// command is a command that runs on the machine.
type command struct {
	client  *Client
	link    *link
	channel ssh.Channel
	text    string
	stdout  *framedReader
	ended   chan struct{} // closed when the server has closed the channel, or the connection is lost
	stderr  tailBuffer

	// Valid when ended is closed.
	hasStatus bool
	exitCode  int
	signal    string
}

// startCommand starts a command of POSIX sh. sessions is as for acquire.
func (c *Client) startCommand(ctx context.Context, text string, sessions int) (*command, error) {
	marker := "dstack-" + rand.Text()
	for try := 1; ; try++ {
		l, channel, requests, err := c.openChannel(ctx, sessionChannel, nil, wish{sessions: sessions})
		if err != nil {
			return nil, c.explainSession(err)
		}
		p := &command{client: c, link: l, channel: channel, text: text, ended: make(chan struct{}),
			stdout: newFramedReader(channel, marker)}
		isStarted, err := p.start(ctx, wrapCommand(text, marker), requests)
		switch {
		case err != nil:
			return nil, err
		case isStarted:
			return p, nil
		case try == maxOpenTries || !c.isRefusedAsFull(l, true):
			return nil, stepFailure(dstack.Unavailable, dstack.HostStepShell, nil,
				fmt.Sprintf("the SSH server of %s starts no command", c.name()), "its log has the reason: journalctl -u ssh")
		}
	}
}

// start sends the request for the command. It reports whether the server started it. It is false, too, if ctx ended or the
// connection was lost, both with an error.
func (p *command) start(ctx context.Context, text string, requests <-chan *ssh.Request) (bool, error) {
	replies := make(chan bool, 1)
	isRunning := p.link.tasks.start(func() { p.watch(requests) }) && p.link.tasks.start(func() {
		ok, err := p.channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{text}))
		replies <- ok && err == nil
	})
	if !isRunning {
		return false, p.link.lost(nil)
	}
	select {
	case ok := <-replies:
		if ok {
			return true, nil
		}
		_ = p.channel.Close()
		if p.link.isLost() {
			return false, p.link.lost(nil)
		}
		<-p.ended // the place is free
		return false, nil
	case <-ctx.Done():
		p.abandon()
		return false, stopped(ctx, p.client.name(), nil)
	}
}

// abandon kills a command whose output nobody reads, in the background.
func (p *command) abandon() {
	if p.stdout != nil {
		p.link.tasks.start(func() { _, _ = io.Copy(io.Discard, p.stdout) }) // for its process group
	}
	p.link.tasks.start(p.kill)
}

// watch reads the exit status until the channel ends, and gives its place back.
func (p *command) watch(requests <-chan *ssh.Request) {
	for r := range requests {
		switch r.Type {
		case "exit-status":
			var status struct{ Code uint32 }
			if ssh.Unmarshal(r.Payload, &status) == nil {
				p.hasStatus, p.exitCode = true, int(status.Code)
			}
		case "exit-signal":
			var status struct {
				Signal     string
				CoreDumped bool
				Error      string
				Lang       string
			}
			if ssh.Unmarshal(r.Payload, &status) == nil {
				p.hasStatus, p.exitCode, p.signal = true, -1, status.Signal
			}
		}
		if r.WantReply { // such as the server's own keep-alive messages
			_ = r.Reply(false, nil)
		}
	}
	close(p.ended)
	p.client.release(p.link, true, !p.hasStatus)
}

// kill ends the command on the machine. Closing its channel would not: it runs on, and sshd counts its session until it ends.
func (p *command) kill() {
	_, _ = p.channel.SendRequest("signal", false, ssh.Marshal(struct{ Signal string }{"KILL"})) // some servers ignore it
	if !p.hasEndedWithin(p.client.times.exit / 4) {
		if group := p.processGroup(); group > 1 {
			p.link.runUncounted(context.WithoutCancel(p.client.ctx), p.client.times.kill, killCommand(p.text, group))
		}
		p.hasEndedWithin(p.client.times.kill)
	}
	_ = p.channel.Close()
}

// processGroup returns the process group of the command, or 0 if it is not known.
func (p *command) processGroup() int {
	if p.stdout == nil {
		return 0
	}
	return p.stdout.processGroup()
}

// hasEndedWithin waits for the end of the command.
func (p *command) hasEndedWithin(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}

// killCommand returns the command that kills a process group. A command under sudo needs sudo to be killed; where sudo allows
// only docker, killing the rest of the group at least closes its input and output. Only this form
// is safe, and only as a builtin of sh: dash refuses -KILL before --, and without --, the program kill of procps 4.0.2 takes a
// group such as 1234 for 1, and kills every process of the machine.
func killCommand(text string, group int) string {
	kill := fmt.Sprintf("kill -s KILL -- -%d", group)
	if strings.HasPrefix(text, "sudo -n ") {
		kill = "sudo -n sh -c \"" + kill + "\" 2>/dev/null || " + kill
	}
	return "sh -c " + quoteWord(kill)
}

// runUncounted runs a simple command in a session beyond those that acquire gives, and waits for its end.
func (l *link) runUncounted(ctx context.Context, limit time.Duration, text string) (stdout string, exitCode int) {
	l.client.mu.Lock()
	l.reserve(true)
	l.client.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	channel, requests, err := l.open(ctx, sessionChannel, nil)
	if err != nil {
		return "", -1
	}
	p := &command{client: l.client, link: l, channel: channel, text: text, ended: make(chan struct{}), exitCode: -1}
	if isStarted, err := p.start(ctx, text, requests); !isStarted || err != nil {
		return "", -1
	}
	var output tailBuffer
	hasRead := make(chan struct{})
	if !l.tasks.start(func() { _, _ = io.Copy(&output, channel); close(hasRead) }) {
		return "", -1
	}
	_ = channel.CloseWrite()
	for _, wait := range []chan struct{}{p.ended, hasRead} {
		select {
		case <-wait:
		case <-ctx.Done():
			_ = channel.Close()
			return "", -1
		}
	}
	return output.String(), p.exitCode
}

// warmUp runs one cheap command. Before it, sshd of OpenSSH 9.2 delays streamed answers by 40 ms (it does not set
// TCP_NODELAY). Its result does not matter; what it prints comes from the login shell.
func (l *link) warmUp(ctx context.Context) {
	if noise, exitCode := l.runUncounted(ctx, l.client.times.warmUp, "true"); exitCode == 0 {
		l.client.mu.Lock()
		l.client.noise = noise
		l.client.mu.Unlock()
	}
}

// explainSession returns the error for a command whose channel the server refused.
func (c *Client) explainSession(err error) error {
	if _, ok := refusedChannel(err); !ok {
		return err
	}
	return stepFailure(dstack.Unsupported, dstack.HostStepShell, err, fmt.Sprintf("the SSH server of %s allows no commands", c.name()),
		"sshd has to allow sessions (MaxSessions) for "+c.options.Login.User)
}

// wrapCommand returns a command for any login shell (bash, dash, fish) that prints the marker and its process group, and then
// runs text with POSIX sh.
func wrapCommand(text, marker string) string {
	return "sh -c " + quoteWord("{ read -r _ _ _ _ g _; } 2>/dev/null </proc/$$/stat; echo "+marker+" $g; "+text)
}

// quoteWord quotes a word for POSIX shells and fish. Backslashes stay outside of quotes: fish reads them inside.
func quoteWord(text string) string {
	return "'" + strings.NewReplacer("'", `'\''`, `\`, `'\\'`).Replace(text) + "'"
}

// framedReader reads the output of a command after the line with the marker, and keeps what comes before it.
type framedReader struct {
	source io.Reader
	marker string

	mu      sync.Mutex // of the fields below; Read is called by one goroutine
	before  []byte     // read so far; without the marker's line once isFound
	isFound bool
	group   int
	rest    []byte
}

func newFramedReader(source io.Reader, marker string) *framedReader {
	return &framedReader{source: source, marker: marker}
}

// errNoMarker is the end of an output without the marker: the login shell has not run the command.
var errNoMarker = errors.New("the command has not begun")

// Read implements io.Reader.
func (f *framedReader) Read(p []byte) (int, error) {
	for !f.isFound {
		n, err := f.source.Read(p)
		f.search(p[:n])
		if f.isFound {
			break
		}
		if err != nil || len(f.before) > maxNoise+len(f.marker) {
			return 0, errors.Join(errNoMarker, err)
		}
	}
	if len(f.rest) > 0 {
		n := copy(p, f.rest)
		f.rest = f.rest[n:]
		return n, nil
	}
	return f.source.Read(p)
}

// search looks for the marker's line in what has been read so far.
func (f *framedReader) search(more []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = append(f.before, more...)
	start := bytes.Index(f.before, []byte(f.marker))
	if start < 0 {
		return
	}
	length := bytes.IndexByte(f.before[start:], '\n')
	if length < 0 {
		return
	}
	line := string(f.before[start : start+length])
	f.rest = bytes.Clone(f.before[start+length+1:])
	f.before = f.before[:start]
	f.group, _ = strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, f.marker)))
	f.isFound = true
}

// processGroup returns the process group of the command, or 0 if it is not known.
func (f *framedReader) processGroup() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.group
}

// noise returns what was printed before the marker.
func (f *framedReader) noise() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.TrimSpace(string(f.before))
}

// tailBuffer keeps the end of what is written to it. The zero value is ready to use.
type tailBuffer struct {
	mu   sync.Mutex
	data []byte
}

// Write implements io.Writer.
func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	if len(b.data) > 2*maxStderr {
		b.data = append(b.data[:0], b.data[len(b.data)-maxStderr:]...)
	}
	return len(p), nil
}

// String returns the end of what was written.
func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.data[max(0, len(b.data)-maxStderr):])
}
